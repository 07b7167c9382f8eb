//! Values that are what they should be, or nothing.
//!
//! Far sides and their clients put what they like into an answer, so one odd value must cost itself, not the whole
//! answer. Everything is read in one pass over the bytes; whatever has no field is skipped and never built.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{
    Deserialize, Deserializer, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};

/// A `T`, or none where the value is something else.
#[derive(Debug, Clone)]
pub struct Lenient<T>(pub Option<T>);

impl<T> Default for Lenient<T> {
    fn default() -> Lenient<T> {
        Lenient(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Lenient<T>, D::Error> {
        deserializer.deserialize_any(LenientVisitor(PhantomData))
    }
}

struct LenientVisitor<T>(PhantomData<T>);

/// One method per kind of scalar: offer it to `T`, and take a refusal for none.
macro_rules! offer {
    ($($method:ident: $type:ty),*) => {
        $(fn $method<E: serde::de::Error>(self, value: $type) -> Result<Lenient<T>, E> {
            Ok(Lenient(T::deserialize(IntoDeserializer::<E>::into_deserializer(value)).ok()))
        })*
    };
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for LenientVisitor<T> {
    type Value = Lenient<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    offer!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str, visit_string: String);

    fn visit_unit<E: serde::de::Error>(self) -> Result<Lenient<T>, E> {
        Ok(Lenient(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Lenient<T>, A::Error> {
        let value = T::deserialize(SeqAccessDeserializer::new(&mut seq));
        // A refusal leaves the elements where they are; a broken document shows itself again here.
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Lenient(value.ok()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Lenient<T>, A::Error> {
        let value = T::deserialize(MapAccessDeserializer::new(&mut map));
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Lenient(value.ok()))
    }
}

/// A JSON object in the order of the document; values that are no `T` are left out.
#[derive(Debug, Clone)]
pub struct Entries<T>(pub Vec<(String, T)>);

impl<T> Default for Entries<T> {
    fn default() -> Entries<T> {
        Entries(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entries<T>, D::Error> {
        struct EntriesVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for EntriesVisitor<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some((name, Lenient(value))) = map.next_entry::<String, Lenient<T>>()? {
                    entries.extend(value.map(|value| (name, value)));
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(EntriesVisitor(PhantomData))
    }
}

/// The elements of a JSON array that are a `T`, and how many are not.
#[derive(Debug, Clone)]
pub struct Items<T> {
    pub good: Vec<T>,
    pub odd: usize,
}

impl<T> Default for Items<T> {
    fn default() -> Items<T> {
        Items {
            good: Vec::new(),
            odd: 0,
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Items<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Items<T>, D::Error> {
        struct ItemsVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ItemsVisitor<T> {
            type Value = Items<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Items<T>, A::Error> {
                let mut items = Items::default();
                while let Some(Lenient(value)) = seq.next_element::<Lenient<T>>()? {
                    match value {
                        Some(value) => items.good.push(value),
                        None => items.odd += 1,
                    }
                }
                Ok(items)
            }
        }

        deserializer.deserialize_seq(ItemsVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_value_costs_itself_only() {
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(default)]
        struct Thing {
            name: Lenient<String>,
            inner: Lenient<Box<Thing>>,
        }
        for (json, name, inner) in [
            (r#"{"name": "a", "inner": {"name": "b"}}"#, Some("a"), true),
            (
                r#"{"name": 7, "inner": 1, "x": [1, [2], {"x": []}]}"#,
                None,
                false,
            ),
            (
                r#"{"name": {"x": [1]}, "inner": "x", "more": null}"#,
                None,
                false,
            ),
            (r#"{"name": null, "inner": null}"#, None, false),
            ("true", None, false),
        ] {
            let Lenient(thing) = serde_json::from_str::<Lenient<Thing>>(json).unwrap();
            let thing = thing.unwrap_or_default();
            assert_eq!(thing.name.0.as_deref(), name, "{json}");
            assert_eq!(thing.inner.0.is_some(), inner, "{json}");
        }
    }
}
