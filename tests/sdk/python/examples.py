"""The examples, as they stand in the repository: each ends well, and says what examples/README.md says it does."""
import json, os, pathlib, subprocess, unittest

ROOT = pathlib.Path(__file__).resolve().parents[3] / "examples"
USES = ["story", "dialogue", "translation", "summary"]


def told(use):
    """The words of an answer as README.md tells it, without our remarks on it."""
    text = (ROOT / "README.md").read_text().split(f"**{use.capitalize()}**")[1].split("\n**")[0]
    return text.removeprefix(":").split("(Wrong:")[0].split()


def said(output):
    """The words of an answer: a text, or what curl got, JSON or events of it."""
    events = [line.removeprefix("data: ") for line in output.splitlines() if line.startswith("data: {")]
    if output.startswith("{"):
        events = [output]
    if not events:
        return output.split()
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    return "".join(choice["message"]["content"] if "message" in choice else choice["text"] for choice in choices).split()


class Examples(unittest.TestCase):
    def run_all(self, folder, suffix, *command):
        for use in USES:
            with self.subTest(folder=folder, use=use):
                file = ROOT / folder / f"{use}{suffix}"
                done = subprocess.run([*command, file], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)
                self.assertEqual(done.returncode, 0, done.stderr + done.stdout)
                print(f"\n{folder}/{file.name}\n{done.stdout}", flush=True)
                words = said(done.stdout)
                self.assertGreater(len(words), 2, done.stdout)
                if use != "story":
                    # Greedy. Of the dialogue, curl has the last answer only.
                    self.assertEqual(told(use)[-len(words):] if folder == "curl" else told(use), words)

    def test_python(self):
        self.run_all("python", ".py", os.environ["MILLRACE_PYTHON"])

    def test_python_0_28(self):
        self.run_all("python-0.28", ".py", os.environ["MILLRACE_PYTHON_LEGACY"])

    def test_node(self):
        # Node looks for packages from the file's own place on.
        link = ROOT / "node" / "node_modules"
        if not link.exists():
            link.symlink_to(ROOT.parent / "tests" / "sdk" / "node" / "node_modules")
        self.run_all("node", ".mjs", "node")

    def test_curl(self):
        self.run_all("curl", ".sh", "bash")


if __name__ == "__main__":
    unittest.main()
