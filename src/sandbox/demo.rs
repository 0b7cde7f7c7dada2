//! `reveille demo`: the whole of Reveille at work, told to someone who has never seen SIP.
//!
//! The daemon is the real one, the sockets are real, the push services are stand-ins as strict as Apple and Google. The
//! demo plays the people: Bob who calls, Alice and Carol who are called. Each act has a deadline and ends the demo with a
//! sentence and exit code 1 when something is not as promised.

mod acts;
mod stage;
mod stay;
mod story;
#[cfg(test)]
mod tests;

use std::io::Write;

use self::acts::Failure;
use self::stage::Stage;
use self::story::Story;
use crate::cli::{DemoArguments, Exit, complain};

/// Runs the demo and writes it to `out`.
#[must_use]
pub fn run(arguments: DemoArguments, out: impl Write + 'static) -> Exit {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(problem) => {
            complain(format_args!("the demo cannot start: {problem}"));
            return Exit::Unavailable;
        }
    };
    let story = Story::new(Box::new(out), arguments.json);
    let exit = runtime.block_on(tell(&story, arguments));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    exit
}

async fn tell(story: &Story, arguments: DemoArguments) -> Exit {
    story.opening();
    let stage = match Stage::build().await {
        Ok(stage) => stage,
        Err(sentence) => {
            story.failure(&Failure { step: "start", sentence });
            return Exit::DemoFailed;
        }
    };
    let played = async {
        let receipt = acts::play(&stage, story).await?;
        if !arguments.once {
            stay::stay(&stage, story).await?;
        }
        Ok(receipt)
    };
    let played: Result<_, Failure> = played.await;
    let drained = stage.strike().await;
    match played {
        Ok(receipt) if drained => {
            story.ending(&receipt);
            Exit::Success
        }
        Ok(_) => {
            let sentence = "the daemon did not shut down in time".to_owned();
            story.failure(&Failure { step: "shutdown", sentence });
            Exit::DemoFailed
        }
        Err(failure) => {
            story.failure(&failure);
            Exit::DemoFailed
        }
    }
}
