//! Chromium, driven over WebDriver: as much of the protocol as the tests need.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

pub(crate) const ENTER: &str = "\u{e007}";
pub(crate) const ESCAPE: &str = "\u{e00c}";
pub(crate) const DOWN: &str = "\u{e015}";

/// A browser with one window; closed when dropped.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
}

impl Browser {
    /// Starts one; says so and returns nothing where there is none.
    pub(crate) fn start() -> Option<Self> {
        let spawned = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let Ok(mut driver) = spawned else {
            eprintln!("skipped: there is no chromedriver (Debian: chromium chromium-driver)");
            return None;
        };
        let mut lines = BufReader::new(driver.stdout.take()?).lines();
        let port = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok());
        // What it says later is nobody's business, but somebody must take it.
        std::thread::spawn(move || lines.for_each(drop));
        let mut browser = Self { driver, port: port?, session: String::new() };
        let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"];
        let options = json!({"args": arguments});
        let wanted =
            json!({"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}});
        let made = browser.ask("POST", "/session", &json!({"capabilities": {"alwaysMatch": wanted}}));
        match made["sessionId"].as_str() {
            Some(session) => session.clone_into(&mut browser.session),
            None => {
                eprintln!("skipped: chromedriver starts no chromium: {}", made["message"]);
                return None;
            }
        }
        Some(browser)
    }

    /// One request; the answer's value.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let body = if method == "GET" || method == "DELETE" { String::new() } else { body.to_string() };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            self.port,
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap();
            }
        }
        let mut bytes = vec![0; length];
        reader.read_exact(&mut bytes).unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()["value"].clone()
    }

    fn within(&self, path: &str, body: &Value) -> Value {
        let answer = self.ask("POST", &format!("/session/{}{path}", self.session), body);
        assert!(answer.get("error").is_none(), "{path}: {answer}");
        answer
    }

    /// Opens a file.
    pub(crate) fn open(&mut self, path: &str) {
        let path = fs::canonicalize(Path::new(path)).unwrap();
        self.within("/url", &json!({"url": format!("file://{}", path.display())}));
    }

    /// Runs a script in the page; what it returns.
    pub(crate) fn run(&mut self, script: &str) -> Value {
        self.within("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// The text of an element, as it is seen.
    pub(crate) fn text(&mut self, selector: &str) -> String {
        let element = self.element(selector);
        let path = format!("/session/{}/element/{element}/text", self.session);
        self.ask("GET", &path, &Value::Null).as_str().unwrap_or_default().to_owned()
    }

    /// Clicks on an element, which must be in sight or be scrolled there.
    pub(crate) fn click(&mut self, selector: &str) {
        let element = self.element(selector);
        self.within(&format!("/element/{element}/click"), &json!({}));
    }

    fn element(&mut self, selector: &str) -> String {
        let found = self.within("/element", &json!({"using": "css selector", "value": selector}));
        let id = found.as_object().and_then(|fields| fields.values().next()).and_then(Value::as_str);
        id.unwrap_or_else(|| panic!("no {selector}")).to_owned()
    }

    /// Presses keys, one after the other, wherever the focus is.
    pub(crate) fn press(&mut self, keys: &str) {
        let each = keys.chars().flat_map(|key| {
            [json!({"type": "keyDown", "value": key.to_string()}), json!({"type": "keyUp", "value": key.to_string()})]
        });
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": each.collect::<Vec<_>>()});
        self.within("/actions", &json!({"actions": [keyboard]}));
    }

    /// The page on paper: a PDF in base 64.
    pub(crate) fn print(&mut self) -> String {
        self.within("/print", &json!({})).as_str().unwrap_or_default().to_owned()
    }

    /// What the page's console says: errors, and what the policy stopped.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        let log = self.within("/se/log", &json!({"type": "browser"}));
        log.as_array().into_iter().flatten().filter_map(|entry| entry["message"].as_str().map(str::to_owned)).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            self.ask("DELETE", &format!("/session/{}", self.session), &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
