//! Arguments → configuration → telemetry → run → exit code.

use std::panic::catch_unwind;
use std::path::Path;
use std::process::ExitCode;

use reveille::cli::{self, AuditCommand, Command, Exit, complain};
use reveille::vault::WipingAllocator;
use reveille::{app, audit_log, ops, sandbox, telemetry};

/// Freed memory holds no secrets.
#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

fn main() -> ExitCode {
    telemetry::tell_only_the_place();
    let exit = catch_unwind(|| cli::parse(std::env::args_os()).map_or_else(|exit| exit, run));
    exit.unwrap_or(Exit::Bug).into()
}

/// The one place where a command meets what carries it out.
fn run(command: Command) -> Exit {
    match command {
        Command::Serve { config } => serve(&config),
        Command::Demo(arguments) => sandbox::demo::run(arguments, std::io::stdout()),
        Command::Phone(arguments) => sandbox::phone::run(&arguments),
        Command::Sandbox(arguments) => sandbox::serve(&arguments),
        Command::CheckConfig { file } => cli::check_config(&file),
        Command::Audit(AuditCommand::Verify { file, key }) => verify(&file, key.as_deref()),
        Command::Status(arguments) => ops::status(&arguments),
        Command::Calls(arguments) => ops::calls(&arguments),
    }
}

fn serve(config: &Path) -> Exit {
    let settings = match cli::load(config) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    if let Err(error) = telemetry::start(settings.log) {
        complain(error);
        return Exit::Bug;
    }
    for warning in &settings.warnings {
        tracing::warn!("{}", warning.describe(&settings.file));
    }
    app::serve(settings)
}

fn verify(file: &Path, key: Option<&Path>) -> Exit {
    match audit_log::verify::verify(file, key, &mut std::io::stdout()) {
        Ok(()) => Exit::Success,
        Err(problem) => {
            complain(&problem);
            if problem.is_refusal() { Exit::Refused } else { Exit::Unavailable }
        }
    }
}
