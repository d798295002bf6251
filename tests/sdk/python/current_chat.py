"""Chats of the newest openai-python: whole, streamed, its helpers for pydantic and tools, errors."""
import json
import logging
import unittest
from enum import Enum

import openai
from pydantic import BaseModel, Field

import qwen

# unittest runs tasks in debug mode, which reports slow ones: not our subject.
logging.getLogger("asyncio").setLevel(logging.ERROR)

MODEL = "smollm2-135m-instruct"
MESSAGES = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "What is the capital of France?"}]
CALL = dict(model=MODEL, messages=MESSAGES, max_completion_tokens=16, temperature=0)
client = openai.OpenAI(max_retries=0)
tools_client = openai.OpenAI(base_url=qwen.URL, api_key=qwen.KEY, max_retries=0)
TOOL_CALL = dict(model=qwen.MODEL, messages=[{"role": "user", "content": qwen.ASK}], tools=[qwen.WEATHER], temperature=0,
                 max_completion_tokens=80)


class Size(str, Enum):
    small = "small"
    large = "large"


class City(BaseModel):
    """A city."""
    name: str = Field(max_length=20)
    size: Size
    rivers: int = Field(ge=0, le=9)


class Chats(unittest.TestCase):
    def test_whole_and_streamed_answers_agree(self):
        whole = client.chat.completions.create(**CALL)
        self.assertEqual((whole.object, whole.choices[0].message.role), ("chat.completion", "assistant"))
        self.assertIsNone(whole.choices[0].message.tool_calls)
        self.assertEqual(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens)
        chunks = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **CALL))
        self.assertEqual({(c.id, c.object) for c in chunks}, {(chunks[0].id, "chat.completion.chunk")})
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        self.assertEqual("".join(c.choices[0].delta.content or "" for c in chunks if c.choices), whole.choices[0].message.content)
        reasons = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
        self.assertEqual(reasons, [whole.choices[0].finish_reason])
        self.assertEqual((chunks[-1].choices, chunks[-1].usage.total_tokens), ([], whole.usage.total_tokens))
        self.assertTrue(all(c.usage is None for c in chunks[:-1]))

    def test_choices_are_ordered_and_the_first_is_that_of_one(self):
        call = CALL | dict(temperature=1, seed=3)
        several = client.chat.completions.create(n=3, **call)
        self.assertEqual([c.index for c in several.choices], [0, 1, 2])
        self.assertEqual(several.choices[0].message.content, client.chat.completions.create(**call).choices[0].message.content)
        parts = ["", "", ""]
        for chunk in client.chat.completions.create(n=3, stream=True, **call):
            parts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
        self.assertEqual(parts, [c.message.content for c in several.choices])

    def test_log_probabilities(self):
        call = CALL | dict(logprobs=True, top_logprobs=3)
        whole = client.chat.completions.create(**call).choices[0]
        tokens = whole.logprobs.content
        # The token that ended it is the last of them, and no part of the text.
        self.assertEqual(whole.finish_reason, "stop")
        self.assertEqual(b"".join(bytes(t.bytes) for t in tokens[:-1]).decode(), whole.message.content)
        for token in tokens:
            # Greedy: the token is the first of its alternatives.
            self.assertEqual(len(token.top_logprobs), 3)
            self.assertEqual((token.token, token.logprob), (token.top_logprobs[0].token, token.top_logprobs[0].logprob))
        streamed = client.chat.completions.create(stream=True, **call)
        self.assertEqual([t for c in streamed if c.choices[0].logprobs for t in c.choices[0].logprobs.content], tokens)

    def test_json_object(self):
        answer = client.chat.completions.create(**CALL | dict(response_format={"type": "json_object"}, temperature=1, seed=2,
                                                              max_completion_tokens=400))
        if answer.choices[0].finish_reason == "stop":  # else the bound came first
            self.assertIsInstance(json.loads(answer.choices[0].message.content), dict)
        self.assertTrue(answer.choices[0].message.content.startswith("{"))

    def test_errors_have_their_classes_and_parameters(self):
        image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}]}
        cases = [
            ("temperature", dict(temperature=3)),
            ("messages", dict(messages=[])),
            ("messages[0].role", dict(messages=[{"role": "king", "content": "x"}])),
            ("messages[0].content[0]", dict(messages=[image])),
            ("max_completion_tokens", dict(max_completion_tokens=0)),
            ("top_logprobs", dict(top_logprobs=2)),
            ("tool_choice", dict(tool_choice="required")),
            ("tools[0].function.name", dict(tools=[{"type": "function", "function": {"name": "a b"}}])),
            ("response_format", dict(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}})),
        ]
        for param, change in cases:
            with self.subTest(param), self.assertRaises(openai.BadRequestError) as caught:
                client.chat.completions.create(**CALL | change)
            self.assertEqual((caught.exception.param, caught.exception.type), (param, "invalid_request_error"))
        with self.assertRaises(openai.BadRequestError) as caught:
            client.chat.completions.create(**CALL | dict(max_completion_tokens=10**6))
        self.assertEqual((caught.exception.code, caught.exception.param), ("context_length_exceeded", "messages"))
        with self.assertRaises(openai.NotFoundError) as caught:
            client.chat.completions.create(**CALL | dict(model="gpt-9"))
        self.assertEqual(caught.exception.code, "model_not_found")
        # Known before the first token: no stream begins.
        with self.assertRaises(openai.BadRequestError):
            client.chat.completions.create(stream=True, **CALL | dict(temperature=3))
        with self.assertRaises(openai.AuthenticationError):
            openai.OpenAI(api_key="sk-wrong", max_retries=0).chat.completions.create(**CALL)


class Helpers(unittest.TestCase):
    """What the SDK makes of pydantic models: `parse` and `stream`."""
    CALL = CALL | dict(messages=[{"role": "user", "content": "Describe Paris."}], temperature=1, seed=4, max_completion_tokens=80)

    def test_parse_gives_the_model(self):
        city = client.chat.completions.parse(response_format=City, **self.CALL).choices[0].message.parsed
        self.assertIsInstance(city, City)

    def test_a_stream_gives_events_and_the_model(self):
        whole = client.chat.completions.parse(response_format=City, **self.CALL).choices[0].message
        with client.chat.completions.stream(response_format=City, stream_options={"include_usage": True}, **self.CALL) as stream:
            events = list(stream)
            final = stream.get_final_completion()
        deltas = [e.delta for e in events if e.type == "content.delta"]
        self.assertEqual("".join(deltas), whole.content)
        self.assertEqual([e.parsed for e in events if e.type == "content.done"], [whole.parsed])
        self.assertEqual(final.choices[0].message.parsed, whole.parsed)
        self.assertEqual(final.choices[0].finish_reason, "stop")
        self.assertGreater(final.usage.completion_tokens, 0)

    def test_an_answer_that_is_cut_short_is_an_error_of_the_sdk(self):
        with self.assertRaises(openai.LengthFinishReasonError):
            client.chat.completions.parse(response_format=City, **self.CALL | dict(max_completion_tokens=3))

    def test_parse_reads_the_arguments_of_calls(self):
        tool = openai.pydantic_function_tool(City)
        for choice in ("required", {"type": "function", "function": {"name": "City"}}):
            with self.subTest(choice):
                answer = client.chat.completions.parse(tools=[tool], tool_choice=choice, parallel_tool_calls=False, **self.CALL)
                self.assertEqual(answer.choices[0].finish_reason, "tool_calls")
                self.assertIsInstance(answer.choices[0].message.tool_calls[0].function.parsed_arguments, City)
                with client.chat.completions.stream(tools=[tool], tool_choice=choice, parallel_tool_calls=False, **self.CALL) as stream:
                    done = [e for e in stream if e.type == "tool_calls.function.arguments.done"]
                self.assertEqual([e.parsed_arguments for e in done],
                                 [answer.choices[0].message.tool_calls[0].function.parsed_arguments])


class Tools(unittest.TestCase):
    def test_a_call_its_result_and_the_answer(self):
        whole = tools_client.chat.completions.create(**TOOL_CALL)
        self.assertEqual(whole.choices[0].finish_reason, "tool_calls")
        message = whole.choices[0].message
        [call] = message.tool_calls
        self.assertEqual((call.type, call.function.name, json.loads(call.function.arguments)), ("function", "get_weather", {"city": "Oslo"}))
        result = {"role": "tool", "tool_call_id": call.id, "content": qwen.RESULT}
        # The SDK's own object goes back as it is.
        answer = tools_client.chat.completions.create(**TOOL_CALL | dict(messages=[*TOOL_CALL["messages"], message, result], tool_choice="none"))
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertIn(str(abs(qwen.CELSIUS)), answer.choices[0].message.content)

    def test_streamed_calls_make_the_whole(self):
        for choice in ("auto", "required", {"type": "function", "function": {"name": "get_weather"}}):
            with self.subTest(choice):
                call = TOOL_CALL | dict(tool_choice=choice, parallel_tool_calls=False)
                whole = tools_client.chat.completions.create(**call).choices[0]
                calls, reasons = {}, []
                for chunk in tools_client.chat.completions.create(stream=True, **call):
                    reasons += [chunk.choices[0].finish_reason] if chunk.choices[0].finish_reason else []
                    for delta in chunk.choices[0].delta.tool_calls or []:
                        if delta.id:
                            calls[delta.index] = {"id": delta.id, "type": delta.type, "name": delta.function.name, "arguments": ""}
                        calls[delta.index]["arguments"] += delta.function.arguments or ""
                self.assertEqual(reasons, [whole.finish_reason])
                self.assertEqual([(c["type"], c["name"], c["arguments"]) for _, c in sorted(calls.items())],
                                 [(c.type, c.function.name, c.function.arguments) for c in whole.message.tool_calls])
                self.assertTrue(all(c["id"] for c in calls.values()))

    def test_none_calls_nothing(self):
        answer = tools_client.chat.completions.create(tool_choice="none", **TOOL_CALL)
        self.assertIsNone(answer.choices[0].message.tool_calls)
        self.assertTrue(answer.choices[0].message.content)

    def test_the_functions_of_old(self):
        call = {name: value for name, value in TOOL_CALL.items() if name != "tools"} | dict(functions=[qwen.FUNCTION])
        for choice in ("auto", {"name": "get_weather"}):
            with self.subTest(choice):
                answer = tools_client.chat.completions.create(function_call=choice, **call).choices[0]
                self.assertIsNone(answer.message.tool_calls)
                self.assertEqual(answer.message.function_call.name, "get_weather")
                self.assertIn("city", json.loads(answer.message.function_call.arguments))
                self.assertEqual(answer.finish_reason, "function_call")
        history = [*TOOL_CALL["messages"], answer.message, {"role": "function", "name": "get_weather", "content": qwen.RESULT}]
        answer = tools_client.chat.completions.create(**call | dict(messages=history), function_call="none")
        self.assertIn(str(abs(qwen.CELSIUS)), answer.choices[0].message.content)


class Async(unittest.IsolatedAsyncioTestCase):
    async def test_whole_streamed_and_parsed(self):
        async with openai.AsyncOpenAI(max_retries=0) as client:
            whole = await client.chat.completions.create(**CALL)
            stream = await client.chat.completions.create(stream=True, **CALL)
            self.assertEqual("".join([c.choices[0].delta.content or "" async for c in stream]), whole.choices[0].message.content)
            parsed = await client.chat.completions.parse(response_format=City, **Helpers.CALL)
            async with client.chat.completions.stream(response_format=City, **Helpers.CALL) as stream:
                final = await stream.get_final_completion()
            self.assertIsInstance(parsed.choices[0].message.parsed, City)
            self.assertEqual(final.choices[0].message.parsed, parsed.choices[0].message.parsed)


class Azure(unittest.TestCase):
    def test_deployments(self):
        azure = openai.AzureOpenAI(azure_endpoint=str(client.base_url).removesuffix("/v1/"), api_version="2024-10-21", max_retries=0,
                                   api_key=client.api_key, base_url=None)
        self.assertEqual(azure.chat.completions.create(**CALL).choices[0].message.content,
                         client.chat.completions.create(**CALL).choices[0].message.content)


if __name__ == "__main__":
    unittest.main()
