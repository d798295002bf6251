"""langchain-openai: `OpenAI` on completions."""
import logging
import unittest

import openai
from langchain_openai import OpenAI  # reads OPENAI_API_KEY and OPENAI_BASE_URL

# unittest runs tasks in debug mode, which reports slow ones: not our subject.
logging.getLogger("asyncio").setLevel(logging.ERROR)

MODEL = "davinci-002"
PROMPT = "The capital of France is"


class Completions(unittest.TestCase):
    llm = OpenAI(model=MODEL, max_tokens=12, temperature=0, max_retries=0)

    def test_invoked_and_streamed_texts_agree(self):
        text = self.llm.invoke(PROMPT)
        self.assertTrue(text.startswith(" Paris"), text)
        self.assertEqual("".join(self.llm.stream(PROMPT)), text)

    def test_a_seed_repeats_and_streams_repeat_it(self):
        llm = OpenAI(model=MODEL, max_tokens=12, temperature=1, seed=5, max_retries=0)
        text = llm.invoke(PROMPT)
        self.assertEqual(llm.invoke(PROMPT), text)
        self.assertEqual("".join(llm.stream(PROMPT)), text)

    def test_batches_are_sorted_by_prompt_and_sample(self):
        # It cuts the list of choices into pieces of `n`, by position.
        llm = OpenAI(model=MODEL, max_tokens=6, temperature=1, n=2, best_of=2, seed=5, max_retries=0)
        prompts = [PROMPT, "Water boils at"]
        result = llm.generate(prompts)
        self.assertEqual([len(g) for g in result.generations], [2, 2])
        for prompt, samples in zip(prompts, result.generations):
            alone = llm.generate([prompt]).generations[0]
            self.assertEqual([s.text for s in samples], [s.text for s in alone])
            self.assertEqual({s.generation_info["finish_reason"] for s in samples}, {"length"})
        usage = result.llm_output["token_usage"]
        self.assertEqual(usage["completion_tokens"], 24)
        self.assertEqual(usage["total_tokens"], usage["prompt_tokens"] + 24)

    def test_log_probabilities(self):
        llm = OpenAI(model=MODEL, max_tokens=3, temperature=0, logprobs=2, max_retries=0)
        info = llm.generate([PROMPT]).generations[0][0].generation_info["logprobs"]
        self.assertEqual(info["tokens"][0], " Paris")
        self.assertEqual(info["top_logprobs"][0][" Paris"], info["token_logprobs"][0])

    def test_stop(self):
        text = self.llm.invoke(PROMPT, stop=["."])
        self.assertNotIn(".", text)
        self.assertEqual("".join(self.llm.stream(PROMPT, stop=["."])), text)

    def test_errors_come_through(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.llm.invoke(PROMPT, temperature=9)
        self.assertEqual(caught.exception.param, "temperature")
        with self.assertRaises(openai.NotFoundError):
            OpenAI(model="gpt-9", max_retries=0).invoke(PROMPT)
        with self.assertRaises(openai.AuthenticationError):
            OpenAI(model=MODEL, api_key="sk-wrong", max_retries=0).invoke(PROMPT)


class Async(unittest.IsolatedAsyncioTestCase):
    async def test_streams(self):
        llm = OpenAI(model=MODEL, max_tokens=12, temperature=0, max_retries=0)
        self.assertEqual("".join([p async for p in llm.astream(PROMPT)]), await llm.ainvoke(PROMPT))
