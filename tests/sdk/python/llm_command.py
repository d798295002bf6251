"""The `llm` command, with a completion model in its `extra-openai-models.yaml`."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

MODELS = f"""
- model_id: story
  model_name: davinci-002
  api_base: {os.environ["OPENAI_BASE_URL"]}
  completion: true
  api_key_name: millrace
- model_id: missing
  model_name: gpt-9
  api_base: {os.environ["OPENAI_BASE_URL"]}
  completion: true
  api_key_name: millrace
"""
PROMPT = "The capital of France is"


class Command(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        pathlib.Path(folder.name, "extra-openai-models.yaml").write_text(MODELS)
        self.keys = pathlib.Path(folder.name, "keys.json")
        self.keys.write_text(json.dumps({"millrace": os.environ["OPENAI_API_KEY"]}))
        self.env = os.environ | {"LLM_USER_PATH": folder.name}

    def llm(self, *arguments):
        command = [pathlib.Path(sys.executable).parent / "llm", *arguments]
        return subprocess.run(command, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    def test_streamed_and_whole_answers_agree(self):
        call = ["-m", "story", PROMPT, "-o", "max_tokens", "12", "-o", "temperature", "1", "-o", "seed", "8"]
        streamed, whole = self.llm(*call), self.llm(*call, "--no-stream")
        self.assertEqual((streamed.returncode, streamed.stderr), (0, ""))
        self.assertTrue(streamed.stdout.strip())
        self.assertEqual(whole.stdout, streamed.stdout)
        logged = json.loads(self.llm("logs", "list", "--json", "-n", "1").stdout)[0]
        self.assertEqual(logged["response"].strip(), whole.stdout.strip())
        self.assertEqual(logged["response_json"]["object"], "text_completion")

    def test_what_it_says(self):
        self.assertIn("Paris", self.llm("-m", "story", PROMPT, "-o", "max_tokens", "3", "-o", "temperature", "0").stdout)

    def test_errors_show_the_servers_words(self):
        missing = self.llm("-m", "missing", PROMPT)
        self.assertEqual(missing.returncode, 1)
        self.assertIn("The model 'gpt-9' does not exist", missing.stderr)
        self.keys.write_text(json.dumps({"millrace": "sk-wrong"}))
        wrong = self.llm("-m", "story", PROMPT)
        self.assertEqual(wrong.returncode, 1)
        self.assertIn("Incorrect API key", wrong.stderr)
