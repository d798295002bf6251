"""What transformers makes of a folder: log-probabilities in float32, and how much they can be trusted."""
import base64, contextlib, zlib

import numpy
import torch

import folder as folders
from families import CONTEXT

# Lengths: a short prompt; one of three KV pages of 32 and a half; one several windows long; one of two pages and a bit.
PROMPTS = {"short": 40, "pages": 112, "long": 150, "middle": 71}
# Whole rows of log-probabilities are kept at these positions (and at the last): on either side of each page's end.
ROWS = {"short": [0, 20], "pages": [31, 32, 63, 64, 95, 96], "long": [50], "middle": []}
GREEDY_TOKENS = 16


def prompts(name, vocabulary):
    """Token ids, the same for all models with a vocabulary of this size and layout."""
    rng = numpy.random.default_rng(zlib.crc32(f"{name} {vocabulary.ordinary}".encode()))
    return rng.choice(list(vocabulary.ordinary), PROMPTS[name]).tolist()


def rows_of(model, ids):
    """Log-probabilities after each of `ids`: one pass, no cache."""
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
    return torch.log_softmax(logits.double(), -1).numpy()


@contextlib.contextmanager
def long_factors(model):
    """LongRoPE's factors for long contexts whatever the prompt's length: what a server has that is ready for a long one."""
    scaling = model.config.rope_parameters
    kept = scaling["original_max_position_embeddings"]
    embedding = model.model.rotary_emb
    rope_type, forward = embedding.rope_type, embedding.forward
    short = embedding.original_inv_freq.clone()
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    long, _ = ROPE_INIT_FUNCTIONS["longrope"](model.config, seq_len=kept + 1)
    embedding.original_inv_freq = long
    try:
        yield
    finally:
        embedding.original_inv_freq, embedding.rope_type, embedding.forward = short, rope_type, forward


def is_longrope(model):
    scaling = getattr(model.config, "rope_parameters", None) or {}
    return scaling.get("rope_type") == "longrope"


def greedy(model, ids):
    ids, chosen = list(ids), []
    for _ in range(GREEDY_TOKENS):
        row = rows_of(model, ids)[-1]
        best, second = numpy.sort(row)[::-1][:2]
        chosen.append({"id": int(row.argmax()), "logprob": round(float(best), 5), "lead": round(float(best - second), 5)})
        ids.append(chosen[-1]["id"])
    assert len(ids) <= CONTEXT
    return chosen


def next_logprobs(rows, ids):
    """That of each prompt token but the first, given those before it."""
    return [float(rows[i][token]) for i, token in enumerate(ids[1:])]


def encoded(row):
    return base64.b64encode(row.astype("<f4").tobytes()).decode()


def answer(name, ids, rows, others=True):
    """What is kept of a prompt's rows: the last, and others."""
    kept = [*(ROWS[name] if others else []), len(ids) - 1]
    return {"name": name, "ids": ids, "next_logprobs": [round(x, 5) for x in next_logprobs(rows, ids)],
            "rows": [{"position": p, "logprobs": encoded(rows[p])} for p in kept]}


def answers(model, vocabulary):
    """Per prompt: ids, the log-probability of every next token, some whole rows, a continuation. And all rows."""
    context = long_factors(model) if is_longrope(model) else contextlib.nullcontext()
    found, everything = [], {}
    with context:
        for name in PROMPTS:
            ids = prompts(name, vocabulary)
            rows = everything[name] = rows_of(model, ids)
            found.append(answer(name, ids, rows))
            if name == "pages":
                found[-1]["greedy"] = greedy(model, ids)
    return found, everything


def worst(a, b):
    """Largest difference of two sets of rows."""
    return max(float(numpy.abs(a[name] - b[name]).max()) for name in a)


def typical(a, b):
    """Median over positions of the largest difference of any token."""
    return float(numpy.median(numpy.concatenate([numpy.abs(a[name] - b[name]).max(1) for name in a])))


def order_matters(model, vocabulary):
    """The least that the last row moves when all but the last four tokens are turned around."""
    moved = []
    for name in PROMPTS:
        ids = prompts(name, vocabulary)
        turned = ids[:-4][::-1] + ids[-4:]
        moved.append(float(numpy.abs(rows_of(model, ids)[-1] - rows_of(model, turned)[-1]).max()))
    return min(moved)


def router_margin(model, vocabulary):
    """How far apart the last expert chosen and the first one not chosen are, at the closest: below that, errors jump."""
    margins, k = [], getattr(model.config, "num_experts_per_tok", None)
    if not k:
        return None

    def seen(module, inputs, _):
        scores = torch.nn.functional.linear(inputs[0].reshape(-1, module.weight.shape[1]), module.weight,
                                            getattr(module, "bias", None))
        top = scores.sort(-1, descending=True).values
        margins.append(float((top[:, k - 1] - top[:, k]).min()))
    hooks = [module.register_forward_hook(seen) for name, module in model.named_modules()
             if name.endswith(("mlp.gate", "mlp.router"))]
    assert hooks
    for name in PROMPTS:
        rows_of(model, prompts(name, vocabulary))
    for hook in hooks:
        hook.remove()
    return min(margins)


def trust(folder, model, vocabulary, spec):
    """What float32 itself loses here, and what each mistake would change."""
    _, rows = answers(model, vocabulary)
    _, exact = answers(folders.load(folder, dtype=torch.float64), vocabulary)
    report = {"float64_difference": worst(rows, exact), "order_difference": order_matters(model, vocabulary),
              "router_margin": router_margin(model, vocabulary), "mistakes": {}}
    for mistake, changes in spec.mistakes.items():
        _, wrong = answers(folders.load(folder, changes), vocabulary)
        report["mistakes"][mistake] = worst(rows, wrong)
    return report
