"""Two vocabularies of about 300 tokens: byte-level BPE and SentencePiece with byte fallback, and the files they come in."""
import io, json

import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXT = """The mill stands where the stream bends, and the race that feeds its wheel was cut through clay.
When the sluice is raised the water comes at once; when it is lowered the stones go on turning for a while.
A miller hears from the sound alone whether the grain is damp, the gap too narrow, or the hopper nearly empty.
In the year 1847 the wheel made 12 turns in a minute, and it ground 350 pounds of rye between two bells.
"""
PROBES = ["The wheel turns.", " two  spaces, 1847!", "naïve Ünïcödé 水車\n\n\tif x:"]

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
PATTERNS = {
    "llama-bpe": CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "gpt-4o": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + CONTRACTIONS + "?"
              r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + CONTRACTIONS + "?"
              r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
BPE_SIZE, SPM_SIZE = 288, 320
# First token, end of text, end of a turn, padding.
BPE_SPECIALS = ["<|begin_of_text|>", "<|endoftext|>", "<|im_end|>", "<|pad|>"]
CHATML = ("{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


class Vocabulary:
    """Files of a tokenizer by name, ids of its special tokens, and ids that prompts may be made of."""

    def __init__(self, kind):
        self.kind = kind
        self.spm = kind in ("spm", "gemma")
        self.size = SPM_SIZE if self.spm else BPE_SIZE
        self.files = {}
        if self.spm:
            self._sentencepiece()
        else:
            self._byte_level()
        self.files["tokenizer.json"] = self.tokenizer.to_str(pretty=False).encode()

    def _byte_level(self):
        pattern = PATTERNS.get(self.kind)
        if pattern:
            split = [pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")]
        else:
            split = [pre_tokenizers.Digits(individual_digits=True)] if self.kind == "starcoder" else []
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not pattern)
        tokenizer = tokenizers.Tokenizer(models.BPE(ignore_merges=self.kind == "llama-bpe"))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, byte_level])
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer.train_from_iterator([TEXT], trainers.BpeTrainer(
            vocab_size=BPE_SIZE - len(BPE_SPECIALS), show_progress=False, initial_alphabet=alphabet))
        ordinary = tokenizer.get_vocab_size()
        assert ordinary == BPE_SIZE - len(BPE_SPECIALS), ordinary
        tokenizer.add_special_tokens(BPE_SPECIALS)
        self.bos, self.eos, self.turn, self.pad = range(ordinary, BPE_SIZE)
        self.ordinary = range(ordinary)
        self.adds_bos = self.kind == "llama-bpe"
        if self.adds_bos:
            tokenizer.post_processor = processors.TemplateProcessing(
                single=f"{BPE_SPECIALS[0]} $A", special_tokens=[(BPE_SPECIALS[0], self.bos)])
        self.tokenizer = tokenizer
        # What llama.cpp's converter asks of phi-4 is this class.
        name = "GPT2Tokenizer" if self.kind in ("gpt-2", "gpt-4o") else "PreTrainedTokenizerFast"
        names = {"bos_token": BPE_SPECIALS[0], "eos_token": BPE_SPECIALS[1], "pad_token": BPE_SPECIALS[3]}
        self._config(name, names, self.adds_bos)

    def _sentencepiece(self):
        gemma = self.kind == "gemma"
        ids = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3} if gemma else \
            {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}
        names = {"bos_piece": "<bos>", "eos_piece": "<eos>"} if gemma else {}
        out = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXT.splitlines()), model_writer=out, model_type="bpe", vocab_size=SPM_SIZE, byte_fallback=True,
            character_coverage=1.0, add_dummy_prefix=not gemma, remove_extra_whitespaces=False, normalization_rule_name="identity",
            num_threads=1, minloglevel=2, **ids, **names)
        self.files["tokenizer.model"] = out.getvalue()
        pieces = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
        assert pieces.vocab_size() == SPM_SIZE
        vocab = {pieces.id_to_piece(i): i for i in range(SPM_SIZE)}
        specials = [i for i in range(SPM_SIZE) if pieces.is_control(i) or pieces.is_unknown(i)]
        first = max(specials) + 257
        merges = [(left, right) for piece, i in vocab.items() if i >= first
                  for left, right in sorted(((piece[:k], piece[k:]) for k in range(1, len(piece))),
                                            key=lambda pair: (vocab.get(pair[0], 0), vocab.get(pair[1], 0)))
                  if left in vocab and right in vocab]
        tokenizer = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        prefix = [] if gemma else [normalizers.Prepend("▁")]
        tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", "▁")])
        strip = [] if gemma else [decoders.Strip(" ", 1, 0)]
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
        self.bos, self.eos, self.pad = pieces.bos_id(), pieces.eos_id(), max(pieces.pad_id(), 0)
        self.turn, self.adds_bos = None, True
        bos = pieces.id_to_piece(self.bos)
        tokenizer.add_special_tokens([pieces.id_to_piece(i) for i in specials])
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, self.bos)])
        self.ordinary = range(max(specials) + 1, SPM_SIZE)
        self.tokenizer = tokenizer
        names = {"bos_token": bos, "eos_token": pieces.id_to_piece(self.eos), "unk_token": "<unk>"}
        self._config("GemmaTokenizer" if gemma else "LlamaTokenizer", names, True)

    def _config(self, tokenizer_class, names, adds_bos):
        config = {"tokenizer_class": tokenizer_class, **names, "add_bos_token": adds_bos, "add_eos_token": False,
                  "clean_up_tokenization_spaces": False, "model_max_length": 256}
        self.files["tokenizer_config.json"] = (json.dumps(config, indent=1) + "\n").encode()
        if self.kind == "qwen2":
            self.files["chat_template.jinja"] = CHATML.encode()

    def ends(self):
        """As `generation_config.json` has it: several where a model has several."""
        return [self.eos, self.turn] if self.turn is not None else self.eos

    def probes(self):
        return [{"text": text, "ids": self.tokenizer.encode(text).ids} for text in PROBES]
