"""langchain-openai: `ChatOpenAI`."""
import logging
import unittest
from typing import Literal

import openai
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI  # reads OPENAI_API_KEY and OPENAI_BASE_URL
from pydantic import BaseModel, Field

import qwen

# unittest runs tasks in debug mode, which reports slow ones: not our subject.
logging.getLogger("asyncio").setLevel(logging.ERROR)

MESSAGES = [SystemMessage("You are a helpful assistant."), HumanMessage("What is the capital of France?")]


class City(BaseModel):
    """A city."""
    name: str = Field(max_length=20)
    size: Literal["small", "large"]


@tool
def get_weather(city: str) -> str:
    """Current weather in a city"""
    return qwen.RESULT


def small(**options):
    return ChatOpenAI(model="smollm2-135m-instruct", **dict(max_tokens=16, temperature=0, max_retries=0) | options)


def with_tools(**options):
    server = dict(model=qwen.MODEL, base_url=qwen.URL, api_key=qwen.KEY)
    return ChatOpenAI(**server, **dict(max_tokens=80, temperature=0, max_retries=0) | options)


class Chats(unittest.TestCase):
    def test_invoked_and_streamed_texts_agree(self):
        whole = small().invoke(MESSAGES)
        self.assertIsInstance(whole, AIMessage)
        self.assertEqual(whole.usage_metadata["output_tokens"], whole.response_metadata["token_usage"]["completion_tokens"])
        chunks = list(small(stream_usage=True).stream(MESSAGES))
        total = chunks[0]
        for chunk in chunks[1:]:
            total += chunk
        self.assertEqual(total.content, whole.content)
        self.assertEqual(total.response_metadata["finish_reason"], whole.response_metadata["finish_reason"])
        self.assertEqual(total.usage_metadata["total_tokens"], whole.usage_metadata["total_tokens"])

    def test_batches_are_ordered(self):
        answers = small().batch([MESSAGES, [HumanMessage("Say hello.")]])
        self.assertEqual(answers[0].content, small().invoke(MESSAGES).content)
        self.assertNotEqual(answers[0].content, answers[1].content)

    def test_several_samples(self):
        [generations] = small(n=2, temperature=1, seed=5).generate([MESSAGES]).generations
        self.assertEqual(generations[0].text, small(temperature=1, seed=5).invoke(MESSAGES).content)
        self.assertEqual(len(generations), 2)

    def test_log_probabilities(self):
        # Cut short: otherwise the token that ended it would be among them, without being part of the text.
        answer = small(logprobs=True, top_logprobs=2, max_tokens=4).invoke(MESSAGES)
        self.assertEqual("".join(t["token"] for t in answer.response_metadata["logprobs"]["content"]), answer.content)

    def test_structured_output_by_each_method(self):
        for method in ("json_schema", "function_calling"):
            for strict in (None, True):
                with self.subTest(method, strict=strict):
                    llm = small(max_tokens=200, temperature=1, seed=1).with_structured_output(City, method=method, strict=strict)
                    self.assertIsInstance(llm.invoke("Describe Paris."), City)
        streamed = list(small(max_tokens=200, temperature=1, seed=1).with_structured_output(City, method="json_schema").stream("Describe Paris."))
        self.assertIsInstance(streamed[-1], City)
        loose = small(max_tokens=80, temperature=0).with_structured_output(City.model_json_schema(), method="function_calling")
        # Other properties are allowed by this form of the schema.
        self.assertLessEqual({"name", "size"}, set(loose.invoke("Describe Paris.")))

    def test_errors_come_through(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            small().invoke(MESSAGES, temperature=9)
        self.assertEqual(caught.exception.param, "temperature")
        with self.assertRaises(openai.NotFoundError):
            ChatOpenAI(model="gpt-9", max_retries=0).invoke(MESSAGES)
        with self.assertRaises(openai.AuthenticationError):
            small(api_key="sk-wrong").invoke(MESSAGES)
        with self.assertRaises(openai.BadRequestError) as caught:
            small(max_tokens=10**6).invoke(MESSAGES)
        self.assertEqual(caught.exception.code, "context_length_exceeded")


class Tools(unittest.TestCase):
    def test_a_call_its_result_and_the_answer(self):
        messages = [HumanMessage(qwen.ASK)]
        llm = with_tools().bind_tools([get_weather])
        called = llm.invoke(messages)
        [call] = called.tool_calls
        self.assertEqual((call["name"], call["args"], called.response_metadata["finish_reason"]),
                         ("get_weather", {"city": "Oslo"}, "tool_calls"))
        # Run as agents do it: the call becomes a message for the model.
        result = get_weather.invoke(call)
        self.assertIsInstance(result, ToolMessage)
        answer = with_tools().bind_tools([get_weather], tool_choice="none").invoke([*messages, called, result])
        self.assertIn(str(abs(qwen.CELSIUS)), answer.content)

    def test_streamed_calls_make_the_whole(self):
        for choice in ("auto", "required", "any", "get_weather"):
            with self.subTest(choice):
                llm = with_tools().bind_tools([get_weather], tool_choice=choice, parallel_tool_calls=False)
                chunks = list(llm.stream([HumanMessage(qwen.ASK)]))
                total = chunks[0]
                for chunk in chunks[1:]:
                    total += chunk
                whole = llm.invoke([HumanMessage(qwen.ASK)])
                self.assertEqual([(c["name"], c["args"]) for c in total.tool_calls], [(c["name"], c["args"]) for c in whole.tool_calls])
                self.assertEqual(len(total.tool_calls), 1)
                self.assertEqual((total.invalid_tool_calls, whole.invalid_tool_calls), ([], []))


class Async(unittest.IsolatedAsyncioTestCase):
    async def test_whole_and_streamed(self):
        whole = await small().ainvoke(MESSAGES)
        self.assertEqual("".join([c.content async for c in small().astream(MESSAGES)]), whole.content)
