"""litellm: its route to any OpenAI-compatible chat endpoint."""
import json
import logging
import os
import unittest

import litellm

import qwen

# unittest runs tasks in debug mode, which reports slow ones: not our subject.
logging.getLogger("asyncio").setLevel(logging.ERROR)

litellm.num_retries = 0
litellm.suppress_debug_info = True
CALL = dict(model="openai/smollm2-135m-instruct", messages=[{"role": "user", "content": "What is the capital of France?"}], max_tokens=16,
            temperature=0, api_base=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"], max_retries=0)
ASKED = [{"role": "user", "content": qwen.ASK}]
TOOL_CALL = dict(model=f"openai/{qwen.MODEL}", tools=[qwen.WEATHER], max_tokens=80, temperature=0, api_base=qwen.URL, api_key=qwen.KEY,
                 max_retries=0)


class Chats(unittest.TestCase):
    def test_whole_and_streamed_answers_agree(self):
        whole = litellm.completion(**CALL)
        chunks = list(litellm.completion(stream=True, stream_options={"include_usage": True}, **CALL))
        rebuilt = litellm.stream_chunk_builder(chunks, messages=CALL["messages"])
        self.assertEqual(rebuilt.choices[0].message.content, whole.choices[0].message.content)
        self.assertEqual(rebuilt.choices[0].finish_reason, whole.choices[0].finish_reason)
        self.assertEqual(rebuilt.usage.total_tokens, whole.usage.total_tokens)

    def test_json_of_a_schema(self):
        schema = {"type": "object", "properties": {"rivers": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["rivers"],
                  "additionalProperties": False}
        answer = litellm.completion(**CALL, response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}})
        self.assertIn(json.loads(answer.choices[0].message.content)["rivers"], range(10))

    def test_errors_have_their_classes(self):
        with self.assertRaises(litellm.BadRequestError) as caught:
            litellm.completion(**CALL | dict(temperature=9))
        self.assertIn("'temperature'", str(caught.exception))
        with self.assertRaises(litellm.NotFoundError):
            litellm.completion(**CALL | dict(model="openai/gpt-9"))
        with self.assertRaises(litellm.AuthenticationError):
            litellm.completion(**CALL | dict(api_key="sk-wrong"))
        with self.assertRaises(litellm.ContextWindowExceededError):
            litellm.completion(**CALL | dict(max_tokens=10**6))


class Tools(unittest.TestCase):
    def test_a_call_its_result_and_the_answer(self):
        whole = litellm.completion(messages=ASKED, **TOOL_CALL).choices[0]
        [call] = whole.message.tool_calls
        self.assertEqual((whole.finish_reason, call.function.name), ("tool_calls", "get_weather"))
        self.assertEqual(json.loads(call.function.arguments), {"city": "Oslo"})
        result = {"role": "tool", "tool_call_id": call.id, "content": qwen.RESULT}
        answer = litellm.completion(messages=[*ASKED, whole.message, result], tool_choice="none", **TOOL_CALL)
        self.assertIn(str(abs(qwen.CELSIUS)), answer.choices[0].message.content)

    def test_streamed_calls_make_the_whole(self):
        for choice in ("auto", "required", {"type": "function", "function": {"name": "get_weather"}}):
            with self.subTest(choice):
                call = TOOL_CALL | dict(messages=ASKED, tool_choice=choice, parallel_tool_calls=False)
                whole = litellm.completion(**call).choices[0]
                rebuilt = litellm.stream_chunk_builder(list(litellm.completion(stream=True, **call))).choices[0]
                self.assertEqual([(c.function.name, c.function.arguments) for c in rebuilt.message.tool_calls],
                                 [(c.function.name, c.function.arguments) for c in whole.message.tool_calls])
                self.assertEqual(rebuilt.finish_reason, whole.finish_reason)


class Async(unittest.IsolatedAsyncioTestCase):
    async def test_whole_and_streamed(self):
        whole = await litellm.acompletion(**CALL)
        stream = await litellm.acompletion(stream=True, **CALL)
        self.assertEqual("".join([p.choices[0].delta.content or "" async for p in stream]), whole.choices[0].message.content)
