"""The examples, as they stand in the repository: each ends well and says something."""
import os, pathlib, subprocess, unittest

ROOT = pathlib.Path(__file__).resolve().parents[3] / "examples"
USES = ["story", "dialogue", "translation", "summary"]


class Examples(unittest.TestCase):
    def run_all(self, folder, suffix, *command):
        for use in USES:
            with self.subTest(folder=folder, use=use):
                file = ROOT / folder / f"{use}{suffix}"
                done = subprocess.run([*command, file], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)
                self.assertEqual(done.returncode, 0, done.stderr + done.stdout)
                self.assertGreater(len(done.stdout.split()), 2, done.stdout)
                print(f"\n{folder}/{file.name}\n{done.stdout}", flush=True)

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
