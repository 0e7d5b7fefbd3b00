//! How two steps differ, place by place.

use serde::Serialize;
use serde_json::Value;

/// The most places that are told.
const MOST: usize = 20;

/// One place where two steps differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The place, such as `explanation.pools.chat.needs.ahead`.
    pub place: String,
    /// What was recorded; none where there was nothing.
    pub recorded: Option<Value>,
    /// What came out now.
    pub now: Option<Value>,
}

/// The first places where two values differ, in the order of the first.
pub(super) fn differences(recorded: &Value, now: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    walk(String::new(), Some(recorded), Some(now), &mut found);
    found
}

fn walk(place: String, recorded: Option<&Value>, now: Option<&Value>, found: &mut Vec<Difference>) {
    if recorded == now || found.len() == MOST {
        return;
    }
    let below = |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
    match (recorded, now) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            for (key, value) in a {
                walk(below(key), Some(value), b.get(key), found);
            }
            for (key, value) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
                walk(below(key), None, Some(value), found);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for index in 0..a.len().max(b.len()) {
                walk(format!("{place}[{index}]"), a.get(index), b.get(index), found);
            }
        }
        _ => found.push(Difference { place, recorded: recorded.cloned(), now: now.cloned() }),
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of =
            |value: &Option<Value>| value.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_string);
        write!(f, "{}: {} was recorded, now {}", self.place, of(&self.recorded), of(&self.now))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_place_that_differs_is_told_and_no_other() {
        let recorded =
            json!({ "plan": { "a": 3, "b": 1 }, "reasons": ["forecast", "steady"], "same": [1, 2] });
        let now = json!({ "plan": { "a": 4, "c": 1 }, "reasons": ["forecast"], "same": [1, 2] });
        let told: Vec<String> = differences(&recorded, &now).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "plan.a: 3 was recorded, now 4",
                "plan.b: 1 was recorded, now nothing",
                "plan.c: nothing was recorded, now 1",
                "reasons[1]: \"steady\" was recorded, now nothing",
            ]
        );
        assert!(differences(&now, &now).is_empty());
    }
}
