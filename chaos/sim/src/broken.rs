//! `tidemark-sim-mutants`: the same program, broken on purpose in the way that its environment says.

#[path = "main.rs"]
mod unbroken;

fn main() -> std::process::ExitCode {
    tidemark_mutants::choose();
    unbroken::main()
}
