"""The newest openai-python: sync, async, streamed, errors."""
import asyncio
import logging
import os
import unittest
from concurrent.futures import ThreadPoolExecutor

import openai

import narrow

MODEL = "davinci-002"
CALL = dict(model=MODEL, prompt="The capital of France is", max_tokens=12, temperature=0)
# unittest runs tasks in debug mode, which reports slow ones: not our subject.
logging.getLogger("asyncio").setLevel(logging.ERROR)
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

    def test_every_sample_of_a_stream_equals_the_whole(self):
        call = CALL | dict(prompt=["The capital of France is", "Water boils at"], n=2, temperature=1, seed=11, logprobs=2)
        whole = client.completions.create(**call)
        for index, choice in enumerate(whole.choices):
            parts = [c.choices[0] for c in client.completions.create(stream=True, **call) if c.choices[0].index == index]
            self.assertEqual("".join(p.text for p in parts), choice.text)
            self.assertEqual([p.finish_reason for p in parts if p.finish_reason], [choice.finish_reason])
            for field in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
                joined = [x for p in parts if p.logprobs for x in getattr(p.logprobs, field)]
                self.assertEqual(joined, getattr(choice.logprobs, field), field)

    def test_finish_reasons(self):
        self.assertEqual(client.completions.create(**CALL).choices[0].finish_reason, "length")
        self.assertEqual(client.completions.create(**CALL | {"stop": "."}).choices[0].finish_reason, "stop")
        ended = client.completions.create(model="text-davinci-003", prompt="Say hello.", max_tokens=200, temperature=0)
        self.assertEqual(ended.choices[0].finish_reason, "stop")
        self.assertLess(ended.usage.completion_tokens, 200)

    def test_token_prompts(self):
        answer = client.completions.create(**CALL | {"prompt": [504, 3575, 282, 4649, 314]})
        self.assertEqual(answer.choices[0].text, client.completions.create(**CALL).choices[0].text)
        both = client.completions.create(**CALL | {"prompt": [[504, 3575, 282, 4649, 314], [504, 3575]]})
        self.assertEqual(both.choices[0].text, answer.choices[0].text)
        self.assertEqual(both.usage.prompt_tokens, 7)

    def test_raw_answers_show_request_id_and_time(self):
        raw = client.completions.with_raw_response.create(**CALL, extra_headers={"X-Request-Id": "mine-1"})
        self.assertEqual(raw.headers["x-request-id"], "mine-1")
        self.assertEqual(raw.parse()._request_id, "mine-1")
        self.assertGreaterEqual(int(raw.headers["openai-processing-ms"]), 0)
        with self.assertRaises(openai.BadRequestError) as caught:
            client.completions.create(**CALL | {"top_p": 2}, extra_headers={"X-Request-Id": "mine-2"})
        self.assertEqual(caught.exception.request_id, "mine-2")

    def test_models(self):
        models = [m.id for m in client.models.list()]
        self.assertIn(MODEL, models)
        self.assertEqual(client.models.retrieve(MODEL).id, MODEL)

    def test_errors(self):
        cases = [
            (openai.BadRequestError, "temperature", dict(temperature=3)),
            (openai.BadRequestError, "max_tokens", dict(max_tokens=-1)),
            (openai.BadRequestError, "n", dict(n=10**9)),
            (openai.BadRequestError, "logit_bias.99999999", dict(logit_bias={"99999999": 1})),
            (openai.BadRequestError, "prompt[0]", dict(prompt=[2**31])),
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


class Azure(unittest.TestCase):
    def test_deployments(self):
        azure = openai.AzureOpenAI(azure_endpoint=os.environ["MILLRACE_URL"], api_version="2024-10-21", max_retries=0,
                                   api_key=client.api_key, base_url=None)
        answer = azure.completions.create(**CALL)
        self.assertEqual(answer.choices[0].text, client.completions.create(**CALL).choices[0].text)


class Overload(unittest.TestCase):
    client = openai.OpenAI(base_url=f"{narrow.URL}/v1", api_key=narrow.KEY, max_retries=0)

    def test_a_full_queue_is_a_rate_limit(self):
        with narrow.full(), self.assertRaises(openai.RateLimitError) as caught:
            self.client.completions.create(**CALL)
        self.assertEqual(caught.exception.code, "engine_overloaded")
        self.assertLessEqual(float(caught.exception.response.headers["retry-after"]), 60)

    def test_retries_succeed_when_there_is_room(self):
        with narrow.full() as release, ThreadPoolExecutor(1) as pool:
            before = narrow.rejected()
            retried = pool.submit(self.client.with_options(max_retries=5).completions.with_raw_response.create, **CALL)
            narrow.until(lambda: narrow.rejected() > before)
            release()
            answer = retried.result(narrow.PATIENCE_S)
        self.assertGreater(answer.retries_taken, 0)
        self.assertEqual(answer.parse().choices[0].text, client.completions.create(**CALL).choices[0].text)

    def test_a_timeout_frees_the_server(self):
        with self.assertRaises(openai.APITimeoutError):
            self.client.with_options(timeout=0.5).completions.create(**openai_body(narrow.LONG))
        narrow.until_idle()

    def test_a_stream_that_is_left_frees_the_server(self):
        with self.client.completions.create(stream=True, **openai_body(narrow.LONG)) as stream:
            self.assertEqual(next(iter(stream)).object, "text_completion")
        narrow.until_idle()


class Cancel(unittest.IsolatedAsyncioTestCase):
    async def test_a_cancelled_task_frees_the_server(self):
        async with openai.AsyncOpenAI(base_url=f"{narrow.URL}/v1", api_key=narrow.KEY, max_retries=0) as client:
            task = asyncio.create_task(client.completions.create(**openai_body(narrow.LONG)))
            await asyncio.to_thread(narrow.until, lambda: narrow.metric("vllm:num_requests_running") == 1)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
        await asyncio.to_thread(narrow.until_idle)


def openai_body(body):
    """The body with what OpenAI does not know in `extra_body`, as this SDK wants it."""
    extra = {name: body[name] for name in ("ignore_eos",) if name in body}
    return {name: value for name, value in body.items() if name not in extra} | {"extra_body": extra}


if __name__ == "__main__":
    unittest.main()
