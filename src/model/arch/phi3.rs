//! Phi 3, 3.5 and 4: as llama, with tensors that are several in one, and a window in some.

use super::{Family, Local, PLAIN, Unsaid};

pub(super) const PHI3: Family = Family {
    name: "phi3",
    fused_gate: true,
    local: Some(Local {
        pattern: None,
        rope_base: None,
        // The first files of the mini and the medium model of 4,096 tokens do not say.
        window: Unsaid::OfContext { context: 4_096, tokens: 2_047 },
    }),
    ..PLAIN
};
