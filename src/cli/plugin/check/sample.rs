//! A configuration for a check: what the author gave, or what the plugin's schema asks for, turned to the built-in far side.

use serde_json::{Map, Value, json};

/// Every required field of the schema: addresses lead to `origin`, the rest is made up. None where there is no schema.
pub(super) fn of_schema(schema: &Value, origin: &str) -> Option<Value> {
    let properties = schema["properties"].as_object()?;
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let mut config = Map::new();
    for name in required.iter().filter_map(Value::as_str) {
        let property = properties.get(name).unwrap_or(&Value::Null);
        config.insert(name.to_owned(), value(name, property, origin));
    }
    Some(Value::Object(config))
}

/// The config with every address that the plugin would take from its schema: those are turned too, or it would go there.
pub(super) fn with_addresses(config: &Value, schema: &Value) -> Value {
    let mut config = config.clone();
    let properties = schema["properties"].as_object();
    if let (Some(fields), Some(properties)) = (config.as_object_mut(), properties) {
        for (name, property) in properties {
            let default = &property["default"];
            if default.as_str().is_some_and(is_address) {
                fields.entry(name).or_insert_with(|| default.clone());
            }
        }
    }
    config
}

fn value(name: &str, property: &Value, origin: &str) -> Value {
    let first = |key: &str| property[key].as_array().and_then(|list| list.first());
    if let Some(given) = property
        .get("default")
        .or(first("examples"))
        .or(first("enum"))
    {
        return given.clone();
    }
    match property["type"].as_str() {
        Some("integer" | "number") => property.get("minimum").cloned().unwrap_or(json!(1)),
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => json!(text(name, property, origin)),
    }
}

fn text(name: &str, property: &Value, origin: &str) -> String {
    let described = property["description"].as_str().unwrap_or_default();
    let is_address = ["url", "server", "address", "endpoint", "host"]
        .iter()
        .any(|word| name.to_lowercase().contains(word))
        || described.contains("http://")
        || described.contains("https://");
    match name {
        _ if is_address => format!("{origin}/check"),
        "repository" => "owner/name".to_owned(),
        "room" => "!check:example.net".to_owned(),
        _ => "check".to_owned(),
    }
}

/// The config with the origin of every http(s) URL replaced.
pub(super) fn turned(config: &Value, origin: &str) -> Value {
    match config {
        Value::String(text) => json!(turned_text(text, origin)),
        Value::Array(items) => items.iter().map(|item| turned(item, origin)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), turned(value, origin)))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

/// An absolute http(s) URL.
fn address(text: &str) -> Option<url::Url> {
    let url = url::Url::parse(text).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
}

fn is_address(text: &str) -> bool {
    address(text).is_some()
}

fn turned_text(text: &str, origin: &str) -> String {
    match address(text) {
        Some(url) => {
            let query = url
                .query()
                .map_or_else(String::new, |query| format!("?{query}"));
            // A bare origin stays one: "http://h" and "http://h/" are not the same to everybody.
            let path = match url.path() {
                "/" if !text.ends_with('/') => "",
                path => path,
            };
            format!("{origin}{path}{query}")
        }
        None => text.to_owned(),
    }
}

/// Names of credentials: every string under a key that is called so.
pub(super) fn credentials(config: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect(config, &mut found);
    found
}

fn collect(config: &Value, found: &mut Vec<String>) {
    for (key, value) in config.as_object().into_iter().flatten() {
        match value {
            Value::String(name) if key.contains("credential") => found.push(name.clone()),
            value => collect(value, found),
        }
    }
}

/// What a JSON schema of a plugin must say, and whether `config` has what it asks for.
pub(super) fn problems(schema: &Value, config: &Value) -> Vec<String> {
    if schema["type"] != "object" {
        return vec!["the schema's `type` must be `object`: config is one".to_owned()];
    }
    let Some(properties) = schema["properties"].as_object() else {
        return vec!["the schema has no `properties`".to_owned()];
    };
    let mut problems = Vec::new();
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap_or_default();
        if !properties.contains_key(name) {
            problems.push(format!(
                "the schema requires `{name}` and does not describe it"
            ));
        }
        if config.get(name).is_none() {
            problems.push(format!("config.{name}: missing"));
        }
    }
    for name in config
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
    {
        if !properties.contains_key(name) {
            problems.push(format!("config.{name}: not in the schema"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_gives_a_config_and_every_url_leads_to_the_far_side() {
        let schema = json!({
            "type": "object", "required": ["url", "priority", "credential", "list"],
            "properties": {
                "url": {"type": "string"}, "priority": {"type": "integer", "minimum": 3},
                "credential": {"type": "string"}, "list": {"type": "array"}, "more": {"type": "string"}
            }
        });
        let config = of_schema(&schema, "http://127.0.0.1:7").unwrap();
        let expected = json!({
            "url": "http://127.0.0.1:7/check", "priority": 3, "credential": "check", "list": []
        });
        assert_eq!(config, expected);
        assert_eq!(credentials(&config), ["check"]);
        assert_eq!(problems(&schema, &config), Vec::<String>::new());
        assert_eq!(
            problems(&schema, &json!({"url": "", "x": 1})).len(),
            4,
            "three missing, one unknown"
        );
        let schema = json!({"properties": {
            "api_url": {"default": "https://example.net/api"}, "url": {"default": "https://h"}, "word": {"default": "w"},
        }});
        assert_eq!(
            with_addresses(&json!({"url": "http://mine"}), &schema),
            json!({"url": "http://mine", "api_url": "https://example.net/api"})
        );
        let turned = turned(
            &json!({"a": ["https://example.net/x?y=1", "http://h", "text"]}),
            "http://127.0.0.1:7",
        );
        assert_eq!(
            turned,
            json!({"a": ["http://127.0.0.1:7/x?y=1", "http://127.0.0.1:7", "text"]})
        );
    }
}
