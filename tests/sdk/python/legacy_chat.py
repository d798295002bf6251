"""Chats of openai-python 0.28.1: `ChatCompletion`, with functions as that generation of code has them."""
import json
import unittest

import openai  # reads OPENAI_API_KEY and OPENAI_API_BASE

import qwen

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
CALL = dict(model="smollm2-135m-instruct", messages=MESSAGES, max_tokens=16, temperature=0)
ASKED = [{"role": "user", "content": qwen.ASK}]
FUNCTION_CALL = dict(model=qwen.MODEL, api_base=qwen.URL, api_key=qwen.KEY, functions=[qwen.FUNCTION], max_tokens=80, temperature=0)


class Chats(unittest.TestCase):
    def test_whole_and_streamed_answers_agree(self):
        whole = openai.ChatCompletion.create(**CALL)
        message = whole["choices"][0]["message"]
        self.assertEqual((whole.object, message["role"]), ("chat.completion", "assistant"))
        self.assertGreater(whole.response_ms, 0)
        chunks = list(openai.ChatCompletion.create(stream=True, **CALL))
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        self.assertEqual("".join(c.choices[0].delta.get("content") or "" for c in chunks), message["content"])
        self.assertEqual(chunks[-1].choices[0].finish_reason, whole.choices[0].finish_reason)

    def test_engine_instead_of_model(self):
        call = {name: value for name, value in CALL.items() if name != "model"}
        by_engine = openai.ChatCompletion.create(engine="text-davinci-002", **call)
        self.assertEqual(by_engine.choices, openai.ChatCompletion.create(**CALL).choices)

    def test_errors_have_their_classes(self):
        with self.assertRaises(openai.error.InvalidRequestError) as caught:
            openai.ChatCompletion.create(**CALL | dict(temperature=3))
        self.assertEqual(caught.exception.param, "temperature")
        with self.assertRaises(openai.error.InvalidRequestError) as caught:
            openai.ChatCompletion.create(**CALL | dict(max_tokens=10**6))
        self.assertEqual(caught.exception.code, "context_length_exceeded")
        with self.assertRaises(openai.error.AuthenticationError):
            openai.ChatCompletion.create(api_key="sk-wrong", **CALL)


class Functions(unittest.TestCase):
    def test_a_call_its_result_and_the_answer(self):
        whole = openai.ChatCompletion.create(messages=ASKED, **FUNCTION_CALL)
        message = whole.choices[0].message
        self.assertEqual((whole.choices[0].finish_reason, message.function_call.name), ("function_call", "get_weather"))
        self.assertEqual(json.loads(message.function_call.arguments), {"city": "Oslo"})
        result = {"role": "function", "name": "get_weather", "content": qwen.RESULT}
        # The SDK's own object goes back as it is.
        answer = openai.ChatCompletion.create(messages=[*ASKED, message, result], function_call="none", **FUNCTION_CALL)
        self.assertIn(str(abs(qwen.CELSIUS)), answer.choices[0].message.content)

    def test_a_streamed_call_makes_the_whole(self):
        call = FUNCTION_CALL | dict(messages=ASKED, function_call={"name": "get_weather"})
        whole = openai.ChatCompletion.create(**call).choices[0].message.function_call
        deltas = [c.choices[0].delta.function_call for c in openai.ChatCompletion.create(stream=True, **call)
                  if c.choices[0].delta.get("function_call")]
        self.assertEqual([d.name for d in deltas if d.get("name")], [whole.name])
        self.assertEqual("".join(d.get("arguments", "") for d in deltas), whole.arguments)


class Async(unittest.IsolatedAsyncioTestCase):
    async def test_whole_and_streamed(self):
        whole = await openai.ChatCompletion.acreate(**CALL)
        pieces = [p.choices[0].delta.get("content") or "" async for p in await openai.ChatCompletion.acreate(stream=True, **CALL)]
        self.assertEqual("".join(pieces), whole.choices[0].message.content)


if __name__ == "__main__":
    unittest.main()
