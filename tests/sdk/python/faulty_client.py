"""openai-python where the model fails at a set step: what is raised, and what is tried again (rows 39 and 40 of
docs/faults.md)."""
import contextlib
import os
import re
import subprocess
import tempfile
import threading
import unittest

import openai

KEY = "sk-of-a-server-that-fails"
CALL = dict(model="davinci-002", prompt="a", max_tokens=20, temperature=0, extra_body={"ignore_eos": True})


@contextlib.contextmanager
def serving(model):
    """A client, which tries again as often as it likes, of a server of that fake model."""
    with tempfile.TemporaryDirectory() as home:
        env = {"PATH": os.environ["PATH"], "HOME": home, "MILLRACE_API_KEY": KEY}
        command = [os.environ["MILLRACE_BIN"], "serve", model, "--port", "0"]
        process = subprocess.Popen(command, cwd=home, env=env, stderr=subprocess.PIPE, text=True)
        try:
            log = iter(process.stderr)
            url = next(found[0] for line in log if (found := re.search(r"http://127\.0\.0\.1:[1-9]\d*", line)))
            next(line for line in log if "ready to serve" in line)
            # Nobody else empties the pipe.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=2) as client:
                yield client
        finally:
            process.kill()
            process.wait()


class Faults(unittest.TestCase):
    def test_row_39_a_failed_step_is_not_tried_again(self):
        with serving("fake:fault=panic@2") as client:
            # A second try would succeed: the fault is in one step alone.
            with self.assertRaises(openai.InternalServerError) as caught:
                client.completions.create(**CALL)
            self.assertEqual(caught.exception.response.headers["x-should-retry"], "false")
            self.assertEqual(client.completions.create(**CALL).usage.completion_tokens, 20)

    def test_row_40_an_error_in_a_stream_is_raised_where_it_happens(self):
        with serving("fake:fault=panic@9") as client:
            chunks = []
            with self.assertRaises(openai.APIError) as caught:
                for chunk in client.completions.create(stream=True, **CALL):
                    chunks.append(chunk)
            self.assertEqual(caught.exception.type, "server_error")
            self.assertGreater(len(chunks), 0)
            self.assertIsNone(chunks[-1].choices[0].finish_reason)


if __name__ == "__main__":
    unittest.main()
