"""openai-python 0.28.1, the client of the old tutorials: their own call, and what else that generation of code does."""
import unittest

import openai  # reads OPENAI_API_KEY and OPENAI_API_BASE

import narrow

PROMPT = "Tell me a story about a robot."


class Tutorial(unittest.TestCase):
    def test_the_tutorials_own_call(self):
        response = openai.Completion.create(
            engine="text-davinci-002", prompt="Tell me a story about a robot.", max_tokens=150, n=1, stop=None, temperature=0.5)
        story = response.choices[0].text.strip()
        self.assertGreater(len(story), 100, f"no story: {story!r}")
        self.assertIn(response.choices[0].finish_reason, ("length", "stop"))
        self.assertEqual(response.object, "text_completion")
        self.assertGreater(response.response_ms, 0)
        usage = response.usage
        self.assertEqual(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)

    def test_streams(self):
        call = dict(engine="text-davinci-002", prompt=PROMPT, max_tokens=24, temperature=0)
        pieces = list(openai.Completion.create(stream=True, **call))
        whole = openai.Completion.create(**call)
        self.assertEqual("".join(p.choices[0].text for p in pieces), whole.choices[0].text)
        self.assertEqual([p.choices[0].finish_reason for p in pieces[:-1]], [None] * (len(pieces) - 1))
        self.assertEqual(pieces[-1].choices[0].finish_reason, whole.choices[0].finish_reason)
        self.assertEqual(len({p.id for p in pieces}), 1)

    def test_model_instead_of_engine(self):
        response = openai.Completion.create(model="davinci-002", prompt="The capital of France is", max_tokens=1, temperature=0)
        self.assertEqual(response.choices[0].text, " Paris")

    def test_engines_and_models_are_listed(self):
        self.assertIn("text-davinci-002", [e.id for e in openai.Engine.list().data])
        self.assertEqual(openai.Engine.retrieve("text-davinci-002").id, "text-davinci-002")
        self.assertIn("text-davinci-002", [m.id for m in openai.Model.list().data])

    def test_errors_have_their_classes(self):
        with self.assertRaises(openai.error.AuthenticationError):
            openai.Completion.create(engine="text-davinci-002", prompt=PROMPT, api_key="sk-wrong")
        with self.assertRaises(openai.error.InvalidRequestError) as caught:
            openai.Completion.create(engine="text-davinci-002", prompt=PROMPT, temperature=3)
        self.assertEqual(caught.exception.param, "temperature")
        with self.assertRaises(openai.error.InvalidRequestError) as caught:
            openai.Completion.create(engine="no/such model", prompt=PROMPT)
        self.assertEqual(caught.exception.code, "model_not_found")
        self.assertIn("no/such model", str(caught.exception))

    def test_several_samples_with_log_probabilities(self):
        call = dict(engine="davinci-002", prompt="The capital of France is", max_tokens=4, echo=True, logprobs=2, n=2, seed=3)
        response = openai.Completion.create(**call)
        self.assertEqual([c.index for c in response.choices], [0, 1])
        for choice in response.choices:
            logprobs = choice.logprobs
            self.assertEqual("".join(logprobs.tokens), choice.text)
            self.assertIsNone(logprobs.token_logprobs[0])
            self.assertEqual(logprobs.text_offset[:2], [0, len(logprobs.tokens[0])])
            for token, own, top in list(zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs))[1:]:
                self.assertEqual(top[token], own)

    def test_the_azure_form(self):
        response = openai.Completion.create(
            api_type="azure", api_base=openai.api_base.removesuffix("/v1"), api_version="2023-05-15", engine="davinci-002",
            prompt="The capital of France is", max_tokens=1, temperature=0)
        self.assertEqual(response.choices[0].text, " Paris")


class Async(unittest.IsolatedAsyncioTestCase):
    async def test_whole_and_streamed(self):
        call = dict(engine="davinci-002", prompt="The capital of France is", max_tokens=12, seed=5)
        whole = await openai.Completion.acreate(**call)
        pieces = [p.choices[0].text async for p in await openai.Completion.acreate(stream=True, **call)]
        self.assertEqual("".join(pieces), whole.choices[0].text)


class Overload(unittest.TestCase):
    def test_a_full_queue_is_a_rate_limit(self):
        with narrow.full(), self.assertRaises(openai.error.RateLimitError) as caught:
            openai.Completion.create(engine="davinci-002", prompt=PROMPT, api_base=f"{narrow.URL}/v1", api_key=narrow.KEY)
        self.assertEqual(caught.exception.json_body["error"]["code"], "engine_overloaded")

    def test_a_timeout_frees_the_server(self):
        with self.assertRaises(openai.error.Timeout):
            openai.Completion.create(request_timeout=0.5, api_base=f"{narrow.URL}/v1", api_key=narrow.KEY, **narrow.LONG)
        narrow.until_idle()


if __name__ == "__main__":
    unittest.main()
