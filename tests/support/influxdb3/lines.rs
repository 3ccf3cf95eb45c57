//! Line protocol as the InfluxDB 3 family reads it: a backslash also escapes a backslash.
//!
//! Panics on a line that it cannot read, since a test that writes nonsense shall not go on. Every
//! point must have a timestamp, in nanoseconds.

use crate::support::model::{Point, Value};

pub(super) fn parse(text: &str) -> Vec<Point> {
    let mut scanner = Scanner { rest: text };
    let mut points = Vec::new();
    loop {
        scanner.skip(&[' ', '\n']);
        match scanner.peek() {
            None => return points,
            Some('#') => drop(scanner.until(&['\n'])),
            Some(_) => points.push(scanner.point()),
        }
    }
}

struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    fn point(&mut self) -> Point {
        let line = self.rest;
        let fail = || -> ! { panic!("no line protocol: {:.200}", line) };
        let mut point = Point::new(&self.name(&[',', ' ']), 0);
        while self.eat(',') {
            let key = self.name(&['=']);
            if !self.eat('=') {
                fail();
            }
            let value = self.name(&[',', ' ']);
            if key.is_empty() || value.is_empty() {
                fail();
            }
            point.tags.insert(key, value);
        }
        self.skip(&[' ']);
        loop {
            let key = self.name(&['=']);
            if key.is_empty() || !self.eat('=') {
                fail();
            }
            let Some(value) = self.value() else { fail() };
            point.fields.insert(key, value);
            if !self.eat(',') {
                break;
            }
        }
        self.skip(&[' ']);
        point.time = self.until(&[' ', '\n']).parse().unwrap_or_else(|_| fail());
        point
    }

    fn value(&mut self) -> Option<Value> {
        if self.eat('"') {
            return self.string().map(Value::String);
        }
        let text = self.until(&[',', ' ', '\n']);
        Some(match text {
            "t" | "T" | "true" | "True" | "TRUE" => Value::Boolean(true),
            "f" | "F" | "false" | "False" | "FALSE" => Value::Boolean(false),
            _ => match text.as_bytes().last()? {
                b'i' => Value::Integer(text[..text.len() - 1].parse().ok()?),
                b'u' => Value::Unsigned(text[..text.len() - 1].parse().ok()?),
                _ => Value::Float(text.parse().ok().filter(|float: &f64| float.is_finite())?),
            },
        })
    }

    /// After the opening quote.
    fn string(&mut self) -> Option<String> {
        let mut string = String::new();
        loop {
            match self.next()? {
                '"' => return Some(string),
                '\\' if matches!(self.peek(), Some('"' | '\\')) => string.extend(self.next()),
                c => string.push(c),
            }
        }
    }

    fn name(&mut self, ends: &[char]) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek().filter(|c| *c != '\n' && !ends.contains(c)) {
            self.next();
            match self.peek() {
                Some(escaped @ (',' | '=' | ' ' | '\\')) if c == '\\' => {
                    self.next();
                    name.push(escaped);
                }
                _ => name.push(c),
            }
        }
        name
    }

    fn until(&mut self, ends: &[char]) -> &'a str {
        let (text, rest) = self.rest.split_at(self.rest.find(ends).unwrap_or(self.rest.len()));
        self.rest = rest;
        text
    }

    fn skip(&mut self, chars: &[char]) {
        self.rest = self.rest.trim_start_matches(chars);
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        if found {
            self.next();
        }
        found
    }
}
