"""instructor: pydantic models by calls and by JSON schema, retries, models as they grow."""
import logging
import unittest
from typing import Literal

import instructor
import openai
from instructor.core import InstructorRetryException
from pydantic import BaseModel, Field, field_validator

import qwen

# unittest runs tasks in debug mode, which reports slow ones: not our subject.
logging.getLogger("asyncio").setLevel(logging.ERROR)

MESSAGES = [{"role": "user", "content": "Describe Paris."}]
# Enough for twenty characters of four tokens each.
CALL = dict(model="smollm2-135m-instruct", messages=MESSAGES, max_tokens=200, temperature=1, seed=1)
MODES = [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA]


class City(BaseModel):
    """A city."""
    name: str = Field(max_length=20)
    size: Literal["small", "large"]
    rivers: int = Field(ge=0, le=9)


class Forecast(BaseModel):
    """The weather in a city."""
    city: str = Field(max_length=20)
    celsius: int = Field(ge=-50, le=50)


def client(mode):
    return instructor.from_openai(openai.OpenAI(max_retries=0), mode=mode)


class Models(unittest.TestCase):
    def test_each_mode_gives_the_model(self):
        for mode in [*MODES, instructor.Mode.TOOLS_STRICT]:
            with self.subTest(mode):
                city, answer = client(mode).create_with_completion(response_model=City, **CALL)
                self.assertIsInstance(city, City)
                self.assertEqual(answer.choices[0].finish_reason, "stop" if mode == instructor.Mode.JSON_SCHEMA else "tool_calls")

    def test_what_was_asked_stands_in_it(self):
        tools = instructor.from_openai(openai.OpenAI(base_url=qwen.URL, api_key=qwen.KEY, max_retries=0))
        said = "It is 21 degrees Celsius in Oslo."
        forecast = tools.create(response_model=Forecast, model=qwen.MODEL, messages=[{"role": "user", "content": said}], max_tokens=80, temperature=0)
        self.assertEqual(forecast.city, "Oslo")

    def test_a_model_that_does_not_validate_is_asked_for_again(self):
        for mode in MODES:
            tries = []

            class Picky(City):
                @field_validator("name")
                @classmethod
                def second_time(cls, name):
                    tries.append(name)
                    if len(tries) == 1:
                        raise ValueError("try another name")
                    return name

            with self.subTest(mode):
                self.assertIsInstance(client(mode).create(response_model=Picky, max_retries=2, **CALL), Picky)
                self.assertEqual(len(tries), 2)

    def test_partial_models_grow_until_they_are_whole(self):
        for mode in MODES:
            with self.subTest(mode):
                # It asks for a `PartialCity`: another answer than `create` has.
                grown = [city.model_dump(mode="json") for city in client(mode).create_partial(response_model=City, **CALL)]
                self.assertIsNone(grown[0]["rivers"])
                City.model_validate(grown[-1])

    def test_errors_come_through(self):
        with self.assertRaises(InstructorRetryException) as caught:
            client(instructor.Mode.TOOLS).create(response_model=City, max_retries=1, **CALL | dict(temperature=9))
        self.assertIn("'temperature'", str(caught.exception))


class Async(unittest.IsolatedAsyncioTestCase):
    async def test_each_mode_gives_the_model(self):
        for mode in MODES:
            async with openai.AsyncOpenAI(max_retries=0) as plain:
                self.assertIsInstance(await instructor.from_openai(plain, mode=mode).create(response_model=City, **CALL), City)


if __name__ == "__main__":
    unittest.main()
