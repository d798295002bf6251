//! Random prompts are made of these: common, so that most vocabularies have each, with the blank before it, as one token, and
//! all of four letters, so that those who count bytes count the same for each.

/// So many of them, from the first, are one token also without a blank: where a text begins.
pub(super) const BEGINNINGS: usize = 367;

#[rustfmt::skip]
pub(super) const WORDS: &[&str] = &[
    "time", "year", "work", "life", "hand", "part", "case", "week", "home", "room", "area", "book", "word", "side",
    "kind", "head", "away", "door", "face", "fact", "game", "idea", "line", "name", "road", "rule", "team", "view",
    "wall", "wife", "body", "city", "hour", "land", "food", "foot", "girl", "half", "help", "ball", "band", "bank",
    "base", "bear", "beat", "bird", "blue", "boat", "bone", "born", "both", "call", "camp", "card", "care", "cash",
    "cell", "club", "coal", "coat", "code", "cold", "come", "cook", "cool", "copy", "core", "corn", "cost", "crop",
    "dark", "data", "date", "days", "deal", "deep", "dish", "draw", "drop", "each", "east", "easy", "edge", "else",
    "even", "ever", "exit", "fail", "fair", "fall", "farm", "fast", "feed", "feel", "felt", "file", "fill", "film",
    "find", "fine", "fire", "firm", "fish", "five", "flag", "flat", "flow", "folk", "form", "four", "free", "fuel",
    "full", "fund", "gain", "gate", "gear", "gene", "give", "goal", "gold", "gone", "good", "gray", "grow", "hair",
    "hall", "hang", "hard", "have", "heat", "held", "here", "hero", "hide", "high", "hill", "hire", "hold", "hole",
    "host", "inch", "into", "iron", "item", "join", "jump", "just", "keep", "kick", "kids", "king", "know", "lake",
    "lane", "last", "late", "lead", "leaf", "lean", "left", "less", "lies", "lift", "like", "link", "list", "live",
    "load", "loan", "lock", "long", "look", "lord", "loss", "lost", "love", "lung", "made", "mail", "main", "make",
    "male", "mark", "mass", "math", "meal", "mean", "menu", "mile", "mind", "mine", "miss", "mode", "moon", "more",
    "most", "move", "much", "must", "near", "neck", "need", "news", "next", "nine", "none", "note", "once", "only",
    "onto", "open", "oral", "over", "pace", "pack", "page", "paid", "pain", "pair", "park", "pass", "past", "path",
    "peak", "pick", "pine", "pipe", "plan", "play", "plot", "plus", "pole", "poll", "pool", "port", "post", "pull",
    "pure", "push", "race", "rail", "rain", "rank", "rate", "read", "real", "rent", "rest", "rice", "rich", "ride",
    "ring", "rise", "risk", "rock", "role", "roll", "root", "rose", "rush", "safe", "said", "salt", "same", "sand",
    "save", "seat", "seed", "seek", "seen", "self", "sell", "send", "sent", "ship", "shop", "shot", "show", "sign",
    "sing", "site", "size", "skin", "slow", "snow", "soft", "sold", "sole", "some", "song", "soon", "sort", "soup",
    "spin", "spot", "star", "stay", "stem", "step", "stop", "such", "tail", "take", "talk", "tank", "task", "teen",
    "tell", "term", "test", "text", "than", "that", "them", "then", "they", "thin", "this", "thus", "tiny", "tips",
    "tone", "tool", "town", "tree", "trip", "true", "tube", "turn", "type", "unit", "upon", "used", "user", "vary",
    "very", "vote", "wait", "wake", "walk", "want", "warm", "warn", "wash", "wave", "ways", "weak", "wear", "well",
    "went", "were", "west", "what", "when", "wide", "wild", "will", "wind", "wine", "wing", "wire", "wise", "with",
    "wood", "yard", "zone", "chef", "crew", "dear", "debt", "desk", "diet", "dirt", "drew", "dust", "duty", "earn",
    "ease", "eyes", "fear", "fell", "gave", "gift", "glad", "goes", "golf", "grew", "harm", "hate", "hear", "holy",
    "hope", "huge", "hunt", "hurt", "joke", "jury", "kept", "knee", "knew", "lack", "lady", "lamp", "lend", "limb",
    "lose", "lots", "loud", "luck", "meat", "meet", "milk", "mood", "nice", "noon", "nose", "okay", "pale", "palm",
    "pile", "pink", "poem", "poet", "poor", "pour", "pray", "rare", "rear", "rely", "roof", "rope", "ruin", "sail",
    "sake", "seem", "shoe", "shut", "sick", "silk", "sink", "slip", "soil", "soul", "suit", "sure", "swim", "tale",
    "tall", "tape", "tend", "tent", "till", "tire", "told", "tour", "twin", "vast", "wage", "whom", "wish", "wore",
    "yeah",
];
