"""The newest openai-python: sync, async, streamed, errors."""
import asyncio
import unittest

import openai

MODEL = "davinci-002"
CALL = dict(model=MODEL, prompt="The capital of France is", max_tokens=12, temperature=0)
# No retries: a test must see the first answer.
client = openai.OpenAI(max_retries=0)


class Sync(unittest.TestCase):
    def test_whole_and_streamed_answers_agree(self):
        whole = client.completions.create(**CALL)
        self.assertTrue(whole.choices[0].text.startswith(" Paris"))
        self.assertEqual(whole.usage.prompt_tokens, 5)
        self.assertEqual(whole.usage.completion_tokens, 12)
        self.assertTrue(whole.system_fingerprint)
        self.assertTrue(whole._request_id)
        chunks = list(client.completions.create(stream=True, stream_options={"include_usage": True}, **CALL))
        self.assertEqual("".join(c.choices[0].text for c in chunks if c.choices), whole.choices[0].text)
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage.total_tokens, whole.usage.total_tokens)
        self.assertTrue(all(c.usage is None for c in chunks[:-1]))

    def test_several_prompts_and_samples_are_ordered(self):
        prompts = ["The capital of France is", "Water boils at"]
        answer = client.completions.create(model=MODEL, prompt=prompts, n=2, max_tokens=6, seed=7)
        self.assertEqual([c.index for c in answer.choices], [0, 1, 2, 3])
        for i, prompt in enumerate(prompts):
            alone = client.completions.create(model=MODEL, prompt=prompt, max_tokens=6, seed=7)
            self.assertEqual(alone.choices[0].text, answer.choices[2 * i].text)

    def test_log_probabilities(self):
        choice = client.completions.create(logprobs=3, echo=True, **CALL).choices[0]
        logprobs = choice.logprobs
        self.assertEqual("".join(logprobs.tokens), choice.text)
        self.assertIsNone(logprobs.token_logprobs[0])
        for token, offset in zip(logprobs.tokens, logprobs.text_offset):
            self.assertEqual(choice.text[offset:offset + len(token)], token)
        for token, own, top in list(zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs))[1:]:
            self.assertEqual(top[token], own)
            self.assertIn(len(top), (3, 4))

    def test_scoring_without_generating(self):
        scored = client.completions.create(model=MODEL, prompt="The capital of France is Paris", max_tokens=0, echo=True, logprobs=1)
        self.assertEqual(scored.choices[0].text, "The capital of France is Paris")
        self.assertEqual(scored.usage.completion_tokens, 0)
        self.assertEqual(len(scored.choices[0].logprobs.tokens), 6)

    def test_stop_strings_never_show(self):
        text = client.completions.create(**CALL | {"stop": ["is", "."]}).choices[0].text
        self.assertNotIn(".", text)
        pieces = [c.choices[0].text for c in client.completions.create(stream=True, **CALL | {"stop": ["is", "."]})]
        self.assertEqual("".join(pieces), text)

    def test_models(self):
        models = [m.id for m in client.models.list()]
        self.assertIn(MODEL, models)
        self.assertEqual(client.models.retrieve(MODEL).id, MODEL)

    def test_errors(self):
        cases = [
            (openai.BadRequestError, "temperature", dict(temperature=3)),
            (openai.BadRequestError, "max_tokens", dict(max_tokens=-1)),
            (openai.BadRequestError, "n", dict(n=10**9)),
            (openai.BadRequestError, "logit_bias", dict(logit_bias={"99999999": 1})),
            (openai.BadRequestError, "prompt", dict(prompt=[2**31])),
            (openai.BadRequestError, "stream_options", dict(stream_options={"include_usage": True})),
        ]
        for error, param, change in cases:
            with self.subTest(param), self.assertRaises(error) as caught:
                client.completions.create(**CALL | change)
            self.assertEqual(caught.exception.param, param)
        with self.assertRaises(openai.NotFoundError) as caught:
            client.completions.create(**CALL | {"model": "gpt-9"})
        self.assertEqual(caught.exception.code, "model_not_found")
        with self.assertRaises(openai.BadRequestError) as caught:
            client.completions.create(**CALL | {"max_tokens": 10**6})
        self.assertEqual(caught.exception.code, "context_length_exceeded")
        with self.assertRaises(openai.AuthenticationError) as caught:
            openai.OpenAI(api_key="sk-wrong", max_retries=0).completions.create(**CALL)
        self.assertEqual(caught.exception.code, "invalid_api_key")


class Async(unittest.IsolatedAsyncioTestCase):
    async def test_sixteen_at_once_equal_each_alone(self):
        async with openai.AsyncOpenAI(max_retries=0) as client:
            calls = [dict(CALL, prompt=f"Number {i} is", seed=i, temperature=i % 2) for i in range(16)]
            alone = [(await client.completions.create(**c)).choices[0].text for c in calls[:4]]
            together = await asyncio.gather(*(client.completions.create(**c) for c in calls))
            self.assertEqual([t.choices[0].text for t in together[:4]], alone)

    async def test_streams(self):
        async with openai.AsyncOpenAI(max_retries=0) as client:
            whole = await client.completions.create(**CALL)
            stream = await client.completions.create(stream=True, **CALL)
            self.assertEqual("".join([c.choices[0].text async for c in stream]), whole.choices[0].text)


if __name__ == "__main__":
    unittest.main()
