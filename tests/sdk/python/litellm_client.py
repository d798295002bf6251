"""litellm: its route to any OpenAI-compatible completions endpoint."""
import logging
import os
import unittest

import litellm

# unittest runs tasks in debug mode, which reports slow ones: not our subject.
logging.getLogger("asyncio").setLevel(logging.ERROR)

litellm.num_retries = 0
litellm.suppress_debug_info = True
CALL = dict(model="text-completion-openai/davinci-002", prompt="The capital of France is", max_tokens=12,
            api_base=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"], max_retries=0)


class Completions(unittest.TestCase):
    def test_whole_and_streamed_answers_agree(self):
        call = CALL | dict(temperature=1, seed=9)
        whole = litellm.text_completion(**call)
        self.assertEqual(whole.choices[0].finish_reason, "length")
        self.assertEqual((whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens), (5, 12, 17))
        pieces = list(litellm.text_completion(stream=True, **call))
        self.assertEqual("".join(p.choices[0].text or "" for p in pieces), whole.choices[0].text)

    def test_what_it_says(self):
        self.assertTrue(litellm.text_completion(temperature=0, **CALL).choices[0].text.startswith(" Paris"))

    def test_several_prompts(self):
        answer = litellm.text_completion(**CALL | dict(prompt=["The capital of France is", "Water boils at"], temperature=0))
        self.assertEqual(len(answer.choices), 2)
        self.assertTrue(answer.choices[0].text.startswith(" Paris"))
        self.assertEqual(answer.usage.completion_tokens, 24)

    def test_errors_have_their_classes(self):
        with self.assertRaises(litellm.BadRequestError) as caught:
            litellm.text_completion(**CALL | dict(temperature=9))
        self.assertIn("'temperature'", str(caught.exception))
        with self.assertRaises(litellm.NotFoundError):
            litellm.text_completion(**CALL | dict(model="text-completion-openai/gpt-9"))
        with self.assertRaises(litellm.AuthenticationError):
            litellm.text_completion(**CALL | dict(api_key="sk-wrong"))
        with self.assertRaises(litellm.ContextWindowExceededError):
            litellm.text_completion(**CALL | dict(max_tokens=10**6))


class Async(unittest.IsolatedAsyncioTestCase):
    async def test_whole_and_streamed(self):
        whole = await litellm.atext_completion(temperature=0, **CALL)
        stream = await litellm.atext_completion(temperature=0, stream=True, **CALL)
        self.assertEqual("".join([p.choices[0].text or "" async for p in stream]), whole.choices[0].text)
