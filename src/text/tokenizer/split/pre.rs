//! The pre-tokenizers that `tokenizer.ggml.pre` names: patterns that are applied one after the other, and
//! what else goes with the name.
//!
//! The names and patterns are those of llama.cpp's `src/llama-vocab.cpp`. Where that notes a model's own
//! pattern beside an approximation that its regular expressions can do, this is the model's own.

/// When a word that is a token as a whole becomes that token, whatever the merges say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::text) enum Whole {
    Never,
    /// Line ends only.
    LineEnds,
    Always,
}

/// What a name stands for.
#[derive(Debug)]
pub(in crate::text) struct Pre {
    pub(in crate::text::tokenizer) names: &'static [&'static str],
    /// Each cuts what the ones before have made of the text: a match is a word, and so is what lies
    /// between two.
    pub(in crate::text::tokenizer) patterns: &'static [&'static str],
    /// The text is brought to normalisation form C first.
    pub(in crate::text::tokenizer) nfc: bool,
    pub(in crate::text::tokenizer) whole: Whole,
    /// BOS is put in front unless the file says otherwise.
    pub(in crate::text::tokenizer) adds_bos: bool,
    /// Tokens are written as text, with U+2581 for blanks, rather than in GPT-2's alphabet; merging
    /// begins with characters rather than bytes.
    pub(in crate::text::tokenizer) blanks: bool,
}

impl Pre {
    const fn new(names: &'static [&'static str], patterns: &'static [&'static str]) -> Self {
        Self { names, patterns, nfc: false, whole: Whole::Never, adds_bos: false, blanks: false }
    }

    const fn nfc(self) -> Self {
        Self { nfc: true, ..self }
    }

    const fn whole(self) -> Self {
        Self { whole: Whole::Always, ..self }
    }

    const fn bos(self) -> Self {
        Self { adds_bos: true, ..self }
    }

    const fn blanks(self) -> Self {
        Self { blanks: true, ..self }
    }

    /// What `name` stands for, if it is known.
    pub(in crate::text::tokenizer) fn named(name: &str) -> Option<&'static Self> {
        PRES.iter().find(|pre| pre.names.contains(&name))
    }
}

/// Of encoders, which no server of completions runs: their texts end with a separator, or are cut by rules of their own.
pub(in crate::text::tokenizer) const ENCODERS: [&str; 5] =
    ["jina-v1-en", "jina-v2-code", "mmbert", "roberta-bpe", "whitespace"];

pub(in crate::text::tokenizer) const GPT2: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
pub(in crate::text::tokenizer) const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|",
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
);
pub(in crate::text::tokenizer) const QWEN35: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|",
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
pub(in crate::text::tokenizer) const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|",
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
);
pub(in crate::text::tokenizer) const DIGIT: &str = r"\p{N}";
pub(in crate::text::tokenizer) const DIGITS_3: &str = r"\p{N}{1,3}";
pub(in crate::text::tokenizer) const DIGITS: &str = r"\p{N}+";
pub(in crate::text::tokenizer) const TRAILING_BLANKS: &str = r"\s+$";
/// Thousands, from the right.
pub(in crate::text::tokenizer) const THOUSANDS: &str = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))";
/// The same, of a number that ends where a word does.
pub(in crate::text::tokenizer) const WORD_THOUSANDS: &str = r"\d{1,3}(?=(?:\d{3})*\b)";
/// Where thousands begin.
pub(in crate::text::tokenizer) const THOUSANDS_MARKS: &str = r"(?=(\d{3})+(?!\d))";

/// Single punctuation marks, and runs of them.
pub(in crate::text::tokenizer) const PUNCTUATION: &str = r"[\p{P}!-/:-@\[-`{-~]";
pub(in crate::text::tokenizer) const PUNCTUATIONS: &str = r"[\p{P}\$\+<=>\^~\|`]+";
/// Words with the blank before them.
pub(in crate::text::tokenizer) const WORDS: &str = " [^ ]*|[^ ]+";

const LINES: &str = r"[^\n]+|[\n]+";
const JAIS2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|",
    r"\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|",
    r"\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}"
);
pub(in crate::text::tokenizer) const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
pub(in crate::text::tokenizer) const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const YOUTU: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const KIMI_K2: &str = concat!(
    r"[\p{Han}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*",
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+",
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const CJK: &str = "[一-龥\u{3040}-ゟ゠-ヿ]+";
const DEEPSEEK3: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|"##,
    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const SPARK2_5: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|"##,
    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"
);
const DEEPSEEK_CJK: &str = "[一-龥\u{800}-一가-\u{d7ff}]+";
const DEEPSEEK_LETTERS: &str = concat!(
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-",
    r"ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ",
    r"-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ",
    r"-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
);
const DEEPSEEK_PUNCTUATION: &str = r"\s?[!-/:-~！-／：-～‘-‟　-。]+";
const AFMOE_CJK: &str = "[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+";
const YOUTU_CJK: &str = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+";
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
const MINICPM5: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|",
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
);
const BAILINGMOE: &str = concat!(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|",
    r"\s*[\r\n]|\s+(?!\S)|\s+"
);
const SEED_CODER: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|",
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
);
const UFAKZEKA: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|",
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
);
const EXAONE_MOE: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
);

/// All that is known.
pub(in crate::text) static PRES: [Pre; 36] = [
    Pre::new(&["default"], &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, DIGITS, "[0-9][0-9][0-9]"]),
    Pre::new(
        &[
            "a.x-4.0",
            "exaone4",
            "gigachat",
            "gpt-2",
            "granite-docling",
            "jais",
            "jina-de",
            "jina-es",
            "jina-v2-de",
            "jina-v2-es",
            "mellum",
            "modern-bert",
            "phi-2",
            "trillion",
        ],
        &[GPT2],
    ),
    // GPT-NeoX's vocabulary.
    Pre::new(&["mpt", "olmo"], &[GPT2]).nfc(),
    Pre::new(
        &["codeshell", "exaone", "mellum2", "minerva-7b", "refact", "smollm", "starcoder"],
        &[DIGIT, GPT2],
    ),
    Pre::new(&["command-r"], &[DIGIT, GPT2]).nfc(),
    Pre::new(&["falcon"], &[PUNCTUATIONS, GPT2, "[0-9][0-9][0-9]"]),
    Pre::new(&["chatglm-bpe", "dbrx", "smaug-bpe"], &[LLAMA3]),
    Pre::new(&["glm4", "glm5"], &[LLAMA3]).whole(),
    Pre::new(
        &[
            "falcon-h1",
            "falcon3",
            "jina-v5-nano",
            "lfm2",
            "llama-bpe",
            "llama-v3",
            "llama3",
            "midm-2.0",
            "pixtral",
        ],
        &[LLAMA3],
    )
    .whole()
    .bos(),
    Pre::new(&["jais-2"], &[JAIS2]),
    Pre::new(&["minicpm5"], &[DIGITS_3, MINICPM5]).whole(),
    Pre::new(&["deepseek-r1-qwen", "f2llmv2", "qwen2"], &[QWEN2]).nfc(),
    Pre::new(&["grok-2", "hunyuan", "kormo", "megrez", "solar-open", "stablelm2"], &[QWEN2]),
    Pre::new(&["qwen35"], &[QWEN35]).nfc(),
    Pre::new(&["ufakzeka"], &[UFAKZEKA]),
    Pre::new(&["laguna"], &[LINES, QWEN2]),
    Pre::new(&["bailingmoe", "bailingmoe2", "llada-moe"], &[BAILINGMOE]),
    Pre::new(&["seed-coder"], &[SEED_CODER]),
    Pre::new(&["exaone-moe"], &[EXAONE_MOE]),
    Pre::new(
        &["deepseek-llm"],
        &[r"[\r\n]", DEEPSEEK_LETTERS, DEEPSEEK_PUNCTUATION, TRAILING_BLANKS, DEEPSEEK_CJK, DIGITS],
    ),
    Pre::new(&["deepseek-coder"], &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, DIGIT]),
    Pre::new(&["deepseek-v3", "hunyuan-dense", "hy_v4", "joyai-llm"], &[DIGITS_3, CJK, DEEPSEEK3]),
    Pre::new(&["spark2_5"], &[DIGITS_3, CJK, SPARK2_5, DIGIT]),
    Pre::new(&["youtu"], &[YOUTU_CJK, YOUTU]).whole(),
    Pre::new(&["afmoe"], &[THOUSANDS, AFMOE_CJK, DEEPSEEK3]),
    Pre::new(&["bloom", "gpt3-finnish", "poro-chat"], &[BLOOM]),
    Pre::new(&["viking"], &[BLOOM, DIGIT]),
    Pre::new(&["tekken"], &[TEKKEN]).whole().bos(),
    Pre::new(&["gpt-4o", "kanana2", "llama4", "minimax-m2", "talkie"], &[GPT4O]),
    Pre::new(&["granite-embed-multi-97m"], &[GPT4O]).whole(),
    Pre::new(&["cohere2moe", "tiny_aya"], &[WORD_THOUSANDS, GPT4O]).nfc(),
    Pre::new(&["kimi-k2"], &[KIMI_K2]),
    Pre::new(&["superbpe"], &[DIGITS, THOUSANDS_MARKS]),
    Pre::new(
        &["chameleon"],
        &[
            "<sentinel:[0-9]+>",
            "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            DIGIT,
            PUNCTUATION,
            GPT2,
        ],
    )
    .bos(),
    Pre { whole: Whole::LineEnds, ..Pre::new(&["gemma4", "granite-embed-multi-311m"], &[LINES]) }
        .bos()
        .blanks(),
    Pre::new(&["sarvam-moe"], &[LINES]).blanks(),
];
