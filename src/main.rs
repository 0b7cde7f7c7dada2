//! Arguments → configuration → telemetry → run → exit code.

use std::panic::catch_unwind;
use std::path::Path;
use std::process::ExitCode;

use reveille::audit_log::evidence;
use reveille::audit_log::prove::{self, Wanted};
use reveille::audit_log::verify::{self, Against};
use reveille::cli::{self, AuditCommand, Command, Exit, complain};
use reveille::vault::WipingAllocator;
use reveille::{app, ops, sandbox, telemetry};

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
        Command::Audit(command) => audit(command),
        Command::Status(arguments) => ops::status(&arguments),
        Command::Calls(arguments) => ops::calls(&arguments),
        Command::LogNames(arguments) => ops::log_names(&arguments),
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

fn audit(command: AuditCommand) -> Exit {
    let out = &mut std::io::stdout();
    let done = match command {
        AuditCommand::Verify { file, key, since, single } => {
            verify::verify(&file, Against { key: key.as_deref(), since: since.as_deref(), single }, out)
        }
        AuditCommand::Prove(cli::ProveArguments { log, wanted, key }) => {
            let cli::Wanted { receipt, record, since } = wanted;
            let receipt = receipt.map(Wanted::Receipt).or(since.map(Wanted::Since));
            let wanted = receipt.unwrap_or_else(|| Wanted::Record(record.unwrap_or_default()));
            prove::prove(&log, key.as_deref(), &wanted, out)
        }
        AuditCommand::Evidence { config } => match cli::load(&config) {
            Ok(settings) => evidence::evidence(&settings, out),
            Err(exit) => return exit,
        },
    };
    match done {
        Ok(()) => Exit::Success,
        Err(problem) => {
            complain(&problem);
            if problem.is_refusal() { Exit::Refused } else { Exit::Unavailable }
        }
    }
}
