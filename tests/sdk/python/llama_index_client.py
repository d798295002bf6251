"""LlamaIndex's OpenAILike on completions."""
import logging
import os
import unittest

import openai
from llama_index.core.base.llms.types import ChatMessage
from llama_index.llms.openai_like import OpenAILike

# unittest runs tasks in debug mode, which reports slow ones: not our subject.
logging.getLogger("asyncio").setLevel(logging.ERROR)

PROMPT = "The capital of France is"


def llm(model="davinci-002", **options):
    server = dict(api_base=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"])
    return OpenAILike(model=model, **server | dict(max_tokens=12, temperature=0, max_retries=0) | options)


class Completions(unittest.TestCase):
    def test_whole_and_streamed_texts_agree(self):
        whole = llm().complete(PROMPT)
        self.assertTrue(whole.text.startswith(" Paris"), whole.text)
        self.assertEqual(whole.raw.usage.completion_tokens, 12)
        parts = list(llm().stream_complete(PROMPT))
        self.assertEqual("".join(p.delta for p in parts), whole.text)
        self.assertEqual(parts[-1].text, whole.text)

    def test_a_seed_repeats(self):
        sampled = llm(temperature=1, additional_kwargs={"seed": 4})
        self.assertEqual(sampled.complete(PROMPT).text, sampled.complete(PROMPT).text)

    def test_messages_become_a_prompt(self):
        # Without `is_chat_model` it writes the history into one text.
        answer = llm("text-davinci-003").chat([ChatMessage(role="user", content="Say hello.")])
        self.assertTrue(answer.message.content.strip())

    def test_errors_come_through(self):
        with self.assertRaises(openai.BadRequestError):
            llm().complete(PROMPT, top_p=7)
        with self.assertRaises(openai.NotFoundError):
            llm("gpt-9").complete(PROMPT)
        with self.assertRaises(openai.AuthenticationError):
            llm(api_key="sk-wrong").complete(PROMPT)


class Async(unittest.IsolatedAsyncioTestCase):
    async def test_whole_and_streamed(self):
        whole = await llm().acomplete(PROMPT)
        parts = [p.delta async for p in await llm().astream_complete(PROMPT)]
        self.assertEqual("".join(parts), whole.text)
