"""The server whose model's template knows tools, and a tool to call."""
import json, os

URL, KEY = os.environ["MILLRACE_TOOLS_URL"] + "/v1", os.environ["MILLRACE_TOOLS_KEY"]
MODEL = "qwen2.5-coder-0.5b-instruct-Q4_K_M"
ASK = "What is the weather in Oslo right now? Use the tool."
SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "description": "Name of a city"}}, "required": ["city"]}
FUNCTION = {"name": "get_weather", "description": "Current weather in a city", "parameters": SCHEMA}
WEATHER = {"type": "function", "function": FUNCTION}
# A result that no model would make up.
CELSIUS = -17
RESULT = json.dumps({"temperature_celsius": CELSIUS})
