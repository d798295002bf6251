"""Every command in README.md and docs/ is run: what stands in blocks marked `sh` and `python`. (The examples: tests/sdk.)

A block is one script that must succeed. Programs that serve are put into the background once they are ready, and end with
their block. What talks to engines that are not here does nothing (NOT_HERE); `make` tells only what it would do, since its
targets are what CI runs; `pip` is done before.
"""
import os, pathlib, re, shutil, subprocess, sys, tempfile, textwrap, unittest

from hub import Hub
from servers import KEY, ROOT
from test_replicas import report

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
NOT_HERE = ["docker", "kubectl", "kustomize", "systemctl", "ollama"]
# Blocks of other kinds are answers and drawings.
RUN = {"sh", "python"}
SMALL = "SmolLM2-135M-Instruct.Q4_1.gguf"
CODER = "qwen2.5-coder-0.5b-instruct-Q4_K_M.gguf"
FOLDER = ROOT / "tests" / "models" / "llama"

# Starts a server in the background, instead of the one that had its port, and waits for it.
MILLRACE = r'''#!/usr/bin/env bash
[ "${1:-}" = serve ] || exec "$REAL_MILLRACE" "$@"
port=8000; admin=; args=("$@")
for ((i = 0; i < $#; i++)); do
  case "${args[i]}" in
    --port) port=${args[i + 1]} ;;
    --admin-listen) admin=${args[i + 1]} ;;
    --ssl-certfile) scheme=https ;;
  esac
done
mkdir -p "$SCRATCH/pids"
[ -e "$SCRATCH/pids/$port" ] && { kill -9 "$(cat "$SCRATCH/pids/$port")"; tail --pid="$(cat "$SCRATCH/pids/$port")" -f /dev/null; }
setsid "$REAL_MILLRACE" "$@" </dev/null >"$SCRATCH/pids/$port.log" 2>&1 & pid=$!
echo $pid >"$SCRATCH/pids/$port"
url=${scheme:-http}://127.0.0.1:$port; [ -n "$admin" ] && url=http://$admin
until "$REAL_CURL" -skf "$url/health/ready" >/dev/null; do
  kill -0 $pid 2>/dev/null || { cat "$SCRATCH/pids/$port.log" >&2; exit 1; }
  sleep 0.02
done
'''
HAPROXY = '''#!/usr/bin/env bash
"$REAL_HAPROXY" "$@" -D -p "$SCRATCH/pids/haproxy" >&2
'''


def blocks(path):
    for match in BLOCK.finditer(path.read_text()):
        line = path.read_text()[:match.start()].count("\n") + 1
        if match[1] in RUN:
            yield match[1], match[2], f"{path.relative_to(ROOT)}:{line}"


class Documents(unittest.TestCase):
    def setUp(self):
        self.scratch = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.models = pathlib.Path(os.environ["SCALE_TEST_CACHE"], "models")
        # A small model under every name of a hub.
        tiny = next(FOLDER.glob("*.gguf"))
        self.hub = self.enterContext(Hub({"name-Q4_K_M.gguf": tiny, "name-Q8_0.gguf": tiny}))

    def prepare(self):
        """A folder as somebody has it who follows the documents."""
        here = self.scratch / "here"
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        for name in "config", "Makefile", "docker-compose.yml", "examples", "docs":
            (here / name).symlink_to(ROOT / name)
        (here / SMALL).symlink_to(self.models / SMALL)
        (here / CODER).symlink_to(self.models / CODER)
        (here / "SmolLM2-135M-Instruct").symlink_to(FOLDER)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout",
                        here / "privkey.pem", "-out", here / "fullchain.pem"], check=True, capture_output=True)
        subprocess.run([os.environ["SCALE_TEST_BIN"], "keys", "add", "somebody", "--file", here / "keys.toml"], check=True, capture_output=True)
        programs = self.scratch / "programs"
        shutil.rmtree(programs, ignore_errors=True)
        programs.mkdir()
        wrappers = {"millrace": MILLRACE, "haproxy": HAPROXY, **{n: "#!/bin/sh\n" for n in [*NOT_HERE, "pip"]},
                    "curl": '#!/bin/sh\nexec "$REAL_CURL" -sS --fail-with-body "$@"\n', "make": '#!/bin/sh\nexec "$REAL_MAKE" -n "$@"\n'}
        for name, text in wrappers.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        return here, {
            **{k: v for k, v in os.environ.items() if not k.startswith("MILLRACE_")}, "PATH": f"{programs}:{os.environ['PATH']}",
            "SCRATCH": str(self.scratch), "REAL_MILLRACE": os.environ["SCALE_TEST_BIN"], "REAL_CURL": shutil.which("curl"),
            "REAL_MAKE": shutil.which("make"), "REAL_HAPROXY": shutil.which("haproxy"), "HOME": str(self.scratch), "KEY": KEY,
            "MILLRACE_API_KEY": KEY, "MILLRACE_MODEL_DIR": str(self.models), "HF_ENDPOINT": self.hub.url, "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": "http://127.0.0.1:8000/v1", "HF_HOME": str(self.scratch / "hub"),
        }

    def end_servers(self):
        for pid in (self.scratch / "pids").glob("*"):
            if pid.suffix != ".log":
                subprocess.run(["kill", "-9", *pid.read_text().split()], stderr=subprocess.DEVNULL)
                pid.unlink()

    def run_block(self, kind, text):
        here, environment = self.prepare()
        try:
            if "millrace serve" not in text and re.search("curl|client|openai", text):
                # What asks a server has one.
                subprocess.run([self.scratch / "programs" / "millrace", "serve", "smollm2-135m-instruct"], env=environment, cwd=here, check=True)
            if kind == "python":
                legacy = "openai.Completion" in text
                python = os.environ["SCALE_TEST_LEGACY_PYTHON"] if legacy else sys.executable
                prelude = "" if "import" in text else "from openai import OpenAI\nclient = OpenAI()\n"
                command = [python, "-c", prelude + text.replace('"sk-..."', repr(KEY))]
            else:
                command = ["bash", "-euo", "pipefail", "-c", text]
            return subprocess.run(command, env=environment, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
        finally:
            self.end_servers()

    def test_every_command_succeeds(self):
        count = 0
        for path in DOCUMENTS:
            for kind, text, place in blocks(path):
                with self.subTest(place):
                    done = self.run_block(kind, text)
                    self.assertEqual(done.returncode, 0, f"{place}\n{textwrap.indent(text, '  ')}{done.stdout[-2000:]}")
                    count += 1
        report(f"{count} blocks of commands in {len(DOCUMENTS)} documents")

    def test_no_command_hides_in_another_kind_of_block(self):
        for path in DOCUMENTS:
            for match in BLOCK.finditer(path.read_text()):
                if match[1] not in RUN:
                    lines = re.findall(rf"^(?:\$ )?(?:millrace|curl|make|python3?|haproxy|promtool) .*$", match[2], re.M)
                    self.assertEqual(lines, [], path)
