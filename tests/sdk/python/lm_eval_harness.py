"""lm-evaluation-harness, `local-completions`, on tasks of our own: what it computes must equal what the server says directly.

Its stock tasks come from a hub. The tokenizer is the server's own (`/tokenizer_info`, `/tokenize`), which the harness finds
by itself, so that neither torch nor transformers is needed.
"""
import json
import os
import pathlib
import unittest
import urllib.request

TASKS = pathlib.Path(__file__).resolve().parent.parent / "lm-eval"
# The same float32 numbers, summed in the same order but in other types: nats.
TOLERANCE = 1e-5
# Of a model that the repository's tests know by heart.
GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "golden" / "smollm2-135m-instruct.logprobs.json"
WORTH_COMPARING = -8
# What four-bit products may lose of it, in nats a token: of all of them (as in src/model/decoder/tests/golden.rs), and of one continuation.
GOLDEN_MEAN, GOLDEN_WORST = 0.04, 0.1
MODEL = "davinci-002"
URL = os.environ["MILLRACE_URL"]
os.chdir(TASKS)  # where the tasks find their data

import lm_eval  # noqa: E402
import lm_eval.models  # noqa: E402, F401 (registers them)
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.api.registry import get_model  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402


def post(path, body):
    headers = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(URL + path, json.dumps(body).encode(), headers)) as answer:
        return json.load(answer)


def direct(prompt, **more):
    body = {"model": MODEL, "prompt": prompt, "max_tokens": 0, "echo": True, "logprobs": 1} | more
    return post("/v1/completions", body)["choices"][0]


def continuation(context, text):
    """The log-probability of `text` after `context`, and whether it is what greedy decoding says."""
    logprobs = direct(context + text)["logprobs"]
    scored = [i for i, offset in enumerate(logprobs["text_offset"]) if offset >= len(context)]
    greedy = all(logprobs["token_logprobs"][i] == max(logprobs["top_logprobs"][i].values()) for i in scored)
    return sum(logprobs["token_logprobs"][i] for i in scored), greedy


SERVER = dict(model=MODEL, base_url=f"{URL}/v1/completions", auth_token=os.environ["OPENAI_API_KEY"])


def golden():
    """Context, continuation, its number of tokens, and its log-probability as a reference implementation has it in float32."""
    for prompt in json.loads(GOLDEN.read_text())["prompts"]:
        ids, logprobs = prompt["ids"], prompt["prompt_logprobs"]
        # Tokens that nothing led to are noise, there as here.
        noise = [i for i, value in enumerate(logprobs) if value is None or value < WORTH_COMPARING]
        for cut in range(max(noise) + 1, len(ids)):
            texts = [post("/detokenize", {"tokens": part})["prompt"] for part in (ids[:cut], ids[cut:])]
            # No character is cut in two.
            if "".join(texts) == prompt["prompt"]:
                yield *texts, len(ids) - cut, sum(logprobs[cut:])
                break


def evaluate(**arguments):
    results = lm_eval.simple_evaluate(
        model="local-completions", model_args=SERVER | arguments, tasks=["millrace_choice", "millrace_rolling", "millrace_generate"],
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False), bootstrap_iters=0, log_samples=True)
    return results["results"], results["samples"]


class Harness(unittest.TestCase):
    def check(self, results, samples):
        largest = 0.0
        for sample in samples["millrace_choice"]:
            for ((value, greedy),), choice in zip(sample["resps"], sample["doc"]["choices"]):
                expected, expected_greedy = continuation(sample["doc"]["context"], choice)
                largest = max(largest, abs(float(value) - expected))
                self.assertAlmostEqual(float(value), expected, delta=TOLERANCE)
                self.assertEqual(greedy in (True, "True"), expected_greedy)
        # A model that scored at random would get a third of them.
        self.assertGreaterEqual(results["millrace_choice"]["acc,none"], 0.75)
        bits = length = 0
        for sample in samples["millrace_rolling"]:
            text = sample["doc"]["context"] + sample["doc"]["choices"][sample["doc"]["answer"]]
            value = float(sample["resps"][0][0])
            begin = post("/tokenize", {"prompt": self.begin, "add_special_tokens": False})["tokens"]
            ids = post("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]
            expected = sum(direct(begin + ids)["logprobs"]["token_logprobs"][1:])
            largest = max(largest, abs(value - expected))
            self.assertAlmostEqual(value, expected, delta=TOLERANCE)
            bits, length = bits - expected / 0.6931471805599453, length + len(text.encode())
        self.assertAlmostEqual(results["millrace_rolling"]["bits_per_byte,none"], bits / length, delta=TOLERANCE)
        for sample in samples["millrace_generate"]:
            stop = [".", "\n", self.end]
            said = direct(sample["doc"]["context"], max_tokens=12, temperature=0, stop=stop, echo=False, logprobs=None)
            self.assertEqual(sample["resps"][0][0], said["text"])
        print(f"acc {results['millrace_choice']['acc,none']:.3f}, bits per byte {results['millrace_rolling']['bits_per_byte,none']:.6f}, "
              f"largest difference to direct scores {largest:.1e} nats")

    @classmethod
    def setUpClass(cls):
        request = urllib.request.Request(f"{URL}/tokenizer_info", headers={"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"})
        with urllib.request.urlopen(request) as answer:
            info = json.load(answer)
        cls.begin, cls.end = info["bos_token"] or info["eos_token"], info["eos_token"]

    def test_batches_of_token_ids(self):
        self.check(*evaluate(batch_size=4, num_concurrent=2))

    def test_golden_values(self):
        wanted = list(golden())
        model = get_model("local-completions").create_from_arg_obj(SERVER, {"batch_size": 2})
        pairs = [Instance(request_type="loglikelihood", doc={}, arguments=tuple(texts), idx=0) for *texts, _, _ in wanted]
        values = [value for value, _ in model.loglikelihood(pairs)]
        off = [abs(value - expected) for value, (*_, expected) in zip(values, wanted)]
        tokens = [count for *_, count, _ in wanted]
        self.assertGreater(sum(tokens), 50)
        print(f"{len(wanted)} golden continuations, {sum(tokens)} tokens: {sum(off) / sum(tokens):.4f} nats a token off, "
              f"{max(o / n for o, n in zip(off, tokens)):.4f} the worst")
        self.assertLess(sum(off) / sum(tokens), GOLDEN_MEAN)
        for value, count, (context, continuation, _, expected) in zip(off, tokens, wanted):
            self.assertLess(value / count, GOLDEN_WORST, (context, continuation, expected))

    def test_texts_one_by_one(self):
        self.check(*evaluate(tokenized_requests=False))
