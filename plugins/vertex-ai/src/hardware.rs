//! The machines of a job: what each pool is made of, and how many GPUs that is.

use serde_json::{Map, Value, json};
use weir_sdk::text;

use crate::wire::{Accelerator, Image, Integer, MachineSpec, Resource};

const POOLS_MAX: usize = 16;
const WORD_MAX: usize = 64;

/// One pool of equal machines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pool {
    pub machine: Option<String>,
    pub replicas: u64,
    pub accelerator: Option<String>,
    /// On each machine.
    pub accelerators: u64,
    pub tpu_topology: Option<String>,
    pub image: Option<String>,
}

impl Pool {
    fn new(
        machine: Option<&MachineSpec>,
        replicas: Option<Integer>,
        image: Option<&Image>,
    ) -> Pool {
        let empty = MachineSpec::default();
        let machine = machine.unwrap_or(&empty);
        let word = |text: Option<&String>| {
            text.map(|text| text::line(text, WORD_MAX))
                .filter(|text| !text.is_empty())
        };
        let accelerator = machine
            .accelerator_type
            .0
            .as_ref()
            .map(|Accelerator(name)| name.clone())
            .filter(|name| !name.is_empty() && name != "ACCELERATOR_TYPE_UNSPECIFIED");
        Pool {
            machine: word(machine.machine_type.0.as_ref()),
            // A pool without a number is one machine.
            replicas: replicas.map_or(1, |Integer(count)| u64::try_from(count).unwrap_or(0)),
            accelerators: match (&accelerator, machine.accelerator_count.0) {
                (None, _) => 0,
                (Some(_), None) => 1,
                (Some(_), Some(Integer(count))) => u64::try_from(count).unwrap_or(0),
            },
            accelerator,
            tpu_topology: word(machine.tpu_topology.0.as_ref()),
            image: image
                .and_then(|image| image.image_uri.0.as_ref())
                .map(|image| text::line(image, 300)),
        }
    }

    fn is_empty(&self) -> bool {
        *self
            == Pool {
                replicas: self.replicas,
                ..Pool::default()
            }
    }

    fn is_tpu(&self) -> bool {
        self.accelerator
            .as_ref()
            .is_some_and(|name| name.starts_with("TPU"))
    }

    /// `2 x a2-highgpu-2g, each 2 x NVIDIA_TESLA_A100`.
    fn words(&self) -> String {
        let machine = self.machine.as_deref().unwrap_or("default machine");
        let mut words = format!("{} x {machine}", self.replicas);
        if let Some(accelerator) = &self.accelerator {
            words.push_str(&format!(", each {} x {accelerator}", self.accelerators));
        }
        if let Some(topology) = &self.tpu_topology {
            words.push_str(&format!(", TPU {topology}"));
        }
        words
    }

    fn json(&self) -> Value {
        let mut json = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                json.insert(name.to_owned(), value);
            }
        };
        put("machine", self.machine.clone().map(Value::from));
        put("replicas", Some(json!(self.replicas)));
        put("accelerator", self.accelerator.clone().map(Value::from));
        let has_accelerator = self.accelerator.is_some();
        put(
            "accelerators",
            has_accelerator.then(|| json!(self.accelerators)),
        );
        put("tpu_topology", self.tpu_topology.clone().map(Value::from));
        put("image", self.image.clone().map(Value::from));
        Value::Object(json)
    }
}

/// All pools of a job, in the provider's order; a pool that was left empty keeps its place.
#[derive(Debug, Clone, Default)]
pub struct Hardware(Vec<Pool>);

impl Hardware {
    pub fn of(resource: &Resource) -> Hardware {
        if let Some(resources) = &resource.dedicated_resources.0 {
            let replicas = resources.starting_replica_count.0;
            return Hardware(vec![Pool::new(
                resources.machine_spec.0.as_ref(),
                replicas,
                None,
            )]);
        }
        let specs = resource
            .job_spec
            .0
            .as_ref()
            .and_then(|spec| spec.worker_pool_specs.0.as_ref());
        let pools = specs.into_iter().flat_map(|specs| &specs.good).map(|pool| {
            let image = pool
                .container_spec
                .0
                .as_ref()
                .or(pool.python_package_spec.0.as_ref());
            Pool::new(pool.machine_spec.0.as_ref(), pool.replica_count.0, image)
        });
        Hardware(pools.take(POOLS_MAX).collect())
    }

    fn used(&self) -> impl Iterator<Item = (usize, &Pool)> {
        self.0
            .iter()
            .enumerate()
            .filter(|(_, pool)| !pool.is_empty())
    }

    /// Σ replicas · accelerators; TPUs are no GPUs.
    pub fn gpus(&self) -> u64 {
        let gpus = self.used().filter(|(_, pool)| !pool.is_tpu());
        gpus.fold(0, |sum, (_, pool)| {
            sum.saturating_add(pool.replicas.saturating_mul(pool.accelerators))
        })
    }

    /// `machine`, `accelerator`, `gpus` for the whole job, `pool0`… where there are several.
    pub fn labels(&self) -> Vec<(String, String)> {
        let distinct = |of: fn(&Pool) -> Option<&String>| {
            let mut words: Vec<&str> = Vec::new();
            for word in self.used().filter_map(|(_, pool)| of(pool)) {
                if !words.contains(&word.as_str()) {
                    words.push(word);
                }
            }
            words.join("+")
        };
        let mut labels = Vec::new();
        let machine = distinct(|pool| pool.machine.as_ref());
        if !machine.is_empty() {
            labels.push(("machine".to_owned(), machine));
        }
        let accelerator = distinct(|pool| pool.accelerator.as_ref());
        if !accelerator.is_empty() {
            labels.push(("accelerator".to_owned(), accelerator));
        }
        if self.used().next().is_some() {
            labels.push(("gpus".to_owned(), self.gpus().to_string()));
        }
        if self.used().count() > 1 {
            let pools = self.used();
            labels.extend(pools.map(|(index, pool)| (format!("pool{index}"), pool.words())));
        }
        labels
    }

    pub fn json(&self) -> Option<Value> {
        let is_there = self.used().next().is_some();
        is_there.then(|| self.0.iter().map(Pool::json).collect())
    }
}
