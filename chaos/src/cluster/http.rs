//! What a server says on its HTTP port.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

/// What stands on `path`, headers and all.
pub(super) async fn get(address: SocketAddr, path: &str) -> Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    tokio::time::timeout(Duration::from_secs(5), exchange).await?
}

/// The sum of a metric over all its labels, if `name` is all of its name; `name` may also have
/// labels of its own. What was never counted is 0.
pub(super) fn metric(page: &str, name: &str) -> f64 {
    let amounts = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let amount = match rest.strip_prefix('{') {
            Some(labels) => labels.split_once("} ")?.1,
            None => rest.strip_prefix(' ')?,
        };
        amount.trim().parse::<f64>().ok()
    });
    amounts.sum()
}

/// The wall clock of a server when it answered, in whole seconds.
pub(super) fn date(answer: &str) -> Result<SystemTime> {
    let header = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("date").then(|| value.to_owned())
    };
    let date = answer.lines().find_map(header).context("the answer has no date")?;
    Ok(httpdate::parse_http_date(&date)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_by_name_and_label() {
        let page = "# TYPE a counter\na 3\na_total{x=\"1\"} 4\na_total{x=\"2\"} 5.5\nab 7\n";
        assert_eq!(metric(page, "a"), 3.0);
        assert_eq!(metric(page, "a_total"), 9.5);
        assert_eq!(metric(page, "a_total{x=\"2\"}"), 5.5);
        assert_eq!(metric(page, "b"), 0.0);
    }

    #[test]
    fn a_server_tells_its_clock() {
        let answer = "HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 1970 00:01:00 GMT\r\n\r\n";
        let minute = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        assert_eq!(date(answer).unwrap(), minute);
    }
}
