//! `OLMo` 2: norms behind attention and MLP instead of before them, and of q and k over all heads.

use super::{Family, PLAIN, QkNorm};

pub(super) const OLMO2: Family = Family {
    name: "olmo2",
    pre_norms: false,
    post_norms: true,
    qk_norm: QkNorm::AllHeads,
    ..PLAIN
};
