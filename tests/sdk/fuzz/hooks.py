"""What schemathesis cannot know of this server: the names of its model, and the rules between two fields."""
import re

import schemathesis

NAME = "gpt-3.5-turbo-instruct"

# Rules that a JSON Schema cannot say, as the server words them.
RULES = [
    r"maximum context length is", r"KV cache holds", r"is not a token", r"is less than n =", r"is greater than n =",
    r"Only allowed when '(stream|logprobs)' is true", r"is greater than max_tokens =", r"unless 'echo' is true", r"belongs to chat",
    r"does not support", r"prompts times", r"Only one of '", r"A text is required",
    # Of chats: what the last message is, which functions there are, what the template takes.
    r"can be continued", r"Not allowed when '", r"There (are|is) (no|two) (tools|functions?)", r"Together with tools", r"The model's chat template",
    r"is not one of 'enable_thinking'", r"is longer than \d+ bytes",
    # What is described as any object, or any message, and read more closely.
    r"- '(tool_choice|function_call|chat_template_kwargs|functions\[\d+\]|messages\[\d+\])",
    r"Not allowed together with", r"A string of more than \d+ bytes", r"0 keeps no token",
]
# Of schemas and grammars, whose own rules no description holds: the feature that is not supported, and its place in the schema.
SCHEMA = re.compile(r"response_format|structured_outputs(\.json)?|(tools|functions)\[\d+\](\.function)?\.parameters")
SCHEMAS = [
    r"^the (keyword|format) '.*' is not supported.* - at '#", r"^'\$(ref|schema)' .* not (supported|within) .* - at '#",
    # Or what makes it no schema at all.
    r"^'[^']+' (is not|has) .* - at '#", r"^The schema is no JSON:", r"^This is no JSON schema:",
]


def is_lark(case):
    outputs = case.body.get("structured_outputs") if isinstance(case.body, dict) else None
    return isinstance(outputs, dict) and "grammar" in outputs


@schemathesis.hook
def before_call(context, case, kwargs):
    """Nearly all names that come to a fuzzer's mind are unknown: use a known one where the name is not what is tested."""
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body["model"] = NAME
    if case.meta is None or case.meta.generation.mode.is_positive:
        for name in case.path_parameters or {}:
            if len(case.path_parameters[name]) % 4:
                case.path_parameters[name] = NAME


@schemathesis.check
def a_refusal_of_sound_data_names_its_rule(ctx, response, case):
    """A request that fits the description is refused only by a rule that the description cannot hold."""
    is_sound = case.meta is not None and case.meta.generation.mode.is_positive
    if not is_sound or response.status_code != 400 or case.method.upper() == "HEAD":
        return
    error = response.json()["error"]
    message, param = error["message"], error["param"] or ""
    # What is Lark is for its compiler to say.
    if param == "structured_outputs" and is_lark(case):
        return
    rules = SCHEMAS if SCHEMA.fullmatch(param) else RULES
    if not any(re.search(rule, message) for rule in rules):
        raise AssertionError(f"sound data was refused: {message}")


@schemathesis.check
def errors_have_their_form_and_every_answer_its_id(ctx, response, case):
    """Also where no status is described, such as for a method that a route does not have."""
    assert response.headers.get("x-request-id"), "no x-request-id"
    if response.status_code >= 400 and case.method.upper() != "HEAD" and case.path not in ("/health", "/health/ready", "/health/live"):
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}, error
        assert isinstance(error["message"], str) and isinstance(error["type"], str), error
