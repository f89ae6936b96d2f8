//! Documents that are made from code, so that they cannot disagree with it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;
use tidemark_proto::status::grpc;
use tidemark_types::ErrorCode;

/// Where each generated document lies, and what it says.
pub(crate) fn generated() -> [(&'static str, String); 1] {
    [("docs/errors.md", errors())]
}

/// Writes all of them.
pub(crate) fn write(root: &Path) -> Result<()> {
    for (path, text) in generated() {
        fs::write(root.join(path), text)?;
    }
    Ok(())
}

fn errors() -> String {
    let mut text = String::from(
        "# Error codes\n\n\
         Generated from `types/src/error.rs` and `proto/src/status.rs` by `cargo xtask docs`.\n\n\
         *Retry*: the same request may succeed later or elsewhere. *No effect*: this attempt \
         certainly changed nothing. *Final*: it settles the send for good, whatever earlier \
         attempts were.\n\n\
         | number | code | gRPC | retry | no effect | final | meaning | what to do |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    let mark = |holds| if holds { "yes" } else { "" };
    for code in ErrorCode::ALL {
        writeln!(
            text,
            "| {} | `{}` | `{:?}` | {} | {} | {} | {} | {} |",
            code.number(),
            code.name(),
            grpc(*code),
            mark(code.is_retryable()),
            mark(code.has_no_effect()),
            mark(code.is_final()),
            code.meaning().trim(),
            code.advice(),
        )
        .expect("a String takes everything");
    }
    text
}
