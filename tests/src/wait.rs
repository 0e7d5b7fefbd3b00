//! Waiting for something to become true, with a deadline and a reason.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// What a look found: the thing, or why not yet.
pub type Look<T> = Result<T, String>;

/// Looks again and again until `look` finds what it is after.
///
/// # Errors
/// When `look` fails for good, or has not found it `within` that time; then with what it said last.
pub async fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Look<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + within;
    let mut last = "the first look did not end".to_owned();
    loop {
        match timeout_at(deadline, look()).await {
            Ok(Ok(Ok(found))) => return Ok(found),
            Ok(Ok(Err(not_yet))) => last = not_yet,
            Ok(Err(error)) => return Err(error.context(format!("while waiting for {what}"))),
            Err(_) => {}
        }
        anyhow::ensure!(Instant::now() < deadline, "no {what} within {within:?}; at last: {last}");
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_the_thing_or_with_the_last_reason() {
        let mut looks = 0;
        let found = until("third look", Duration::from_secs(1), async || {
            looks += 1;
            Ok(if looks == 3 { Ok(looks) } else { Err(format!("look {looks}")) })
        });
        assert_eq!(found.await.unwrap(), 3);
        let never =
            until::<()>("unicorn", Duration::from_secs(1), async || Ok(Err("a horse".to_owned()))).await;
        assert_eq!(never.unwrap_err().to_string(), "no unicorn within 1s; at last: a horse");
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_does_not_hold_up_the_deadline() {
        let never =
            until::<()>("answer", Duration::from_secs(1), async || std::future::pending().await).await;
        assert!(never.unwrap_err().to_string().contains("no answer within 1s"));
    }
}
