//! The `weir` binary: parse, run one command, map the result to a documented exit code.

use clap::Parser as _;
use std::process::ExitCode;
use weir::cli::{self, Cli};

/// What the actors allocate the journal's writer frees, in another thread: glibc's allocator makes both wait there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(cli::main(args));
            // A stuck blocking task must not keep the process: what matters was waited for.
            runtime.shutdown_background();
            exit.into()
        }
        Err(error) => cli::no_runtime(&error).into(),
    }
}
