"""LlamaIndex's OpenAILike on chats (`is_chat_model`), and the functions that its agents call."""
import logging
import os
import unittest
from typing import Literal

import openai
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, Field

import qwen

# unittest runs tasks in debug mode, which reports slow ones: not our subject.
logging.getLogger("asyncio").setLevel(logging.ERROR)

MESSAGES = [ChatMessage(role="system", content="You are a helpful assistant."), ChatMessage(role="user", content="What is the capital of France?")]


class City(BaseModel):
    """A city."""
    name: str = Field(max_length=20)
    size: Literal["small", "large"]


def get_weather(city: str) -> str:
    """Current weather in a city"""
    return qwen.RESULT


def small(model="smollm2-135m-instruct", **options):
    server = dict(api_base=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"])
    return OpenAILike(model=model, is_chat_model=True, **server | dict(max_tokens=16, temperature=0, max_retries=0) | options)


def with_tools(**options):
    server = dict(api_base=qwen.URL, api_key=qwen.KEY, is_function_calling_model=True)
    return small(qwen.MODEL, **server | dict(max_tokens=80) | options)


class Chats(unittest.TestCase):
    def test_whole_and_streamed_texts_agree(self):
        whole = small().chat(MESSAGES)
        self.assertEqual(whole.message.role, "assistant")
        parts = list(small().stream_chat(MESSAGES))
        self.assertEqual("".join(p.delta for p in parts), whole.message.content)
        self.assertEqual(parts[-1].message.content, whole.message.content)

    def test_a_prompt_becomes_a_message(self):
        asked = small().chat(MESSAGES[1:])
        self.assertEqual(small().complete(MESSAGES[1].content).text, asked.message.content)

    def test_structured_output_by_each_way(self):
        prompt = PromptTemplate("Describe {city}.")
        for ways in (dict(should_use_structured_outputs=True), dict(is_function_calling_model=True)):
            with self.subTest(ways):
                llm = small(max_tokens=200, temperature=1, additional_kwargs={"seed": 1}, **ways)
                self.assertIsInstance(llm.structured_predict(City, prompt, city="Paris"), City)

    def test_errors_come_through(self):
        with self.assertRaises(openai.BadRequestError):
            small().chat(MESSAGES, top_p=7)
        with self.assertRaises(openai.NotFoundError):
            small("gpt-9").chat(MESSAGES)
        with self.assertRaises(openai.AuthenticationError):
            small(api_key="sk-wrong").chat(MESSAGES)


class Tools(unittest.TestCase):
    tool = FunctionTool.from_defaults(fn=get_weather)

    def test_a_call_its_result_and_the_answer(self):
        history = [ChatMessage(role="user", content=qwen.ASK)]
        llm = with_tools()
        called = llm.chat_with_tools([self.tool], chat_history=list(history))
        [call] = llm.get_tool_calls_from_response(called)
        self.assertEqual((call.tool_name, call.tool_kwargs), ("get_weather", {"city": "Oslo"}))
        result = ChatMessage(role="tool", content=str(self.tool.call(**call.tool_kwargs)), additional_kwargs={"tool_call_id": call.tool_id})
        answer = llm.chat([*history, called.message, result])
        self.assertIn(str(abs(qwen.CELSIUS)), answer.message.content)

    def test_streamed_calls_make_the_whole(self):
        llm = with_tools()
        for choice in ("auto", "required", "get_weather"):
            with self.subTest(choice):
                call = dict(user_msg=qwen.ASK, tool_choice=choice)
                [whole] = llm.get_tool_calls_from_response(llm.chat_with_tools([self.tool], **call))
                *_, last = llm.stream_chat_with_tools([self.tool], **call)
                [streamed] = llm.get_tool_calls_from_response(last)
                self.assertEqual((streamed.tool_name, streamed.tool_kwargs), (whole.tool_name, whole.tool_kwargs))


class Async(unittest.IsolatedAsyncioTestCase):
    async def test_whole_and_streamed(self):
        whole = await small().achat(MESSAGES)
        parts = [p.delta async for p in await small().astream_chat(MESSAGES)]
        self.assertEqual("".join(parts), whole.message.content)
