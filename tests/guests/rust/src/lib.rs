//! Job source that misbehaves as its configuration says: trap, spin, bomb, slow, or fine.

use weir_sdk::plugin::{Context, Coverage, JobSource, Page, Plugin};
use weir_sdk::{Failure, Far, JobRef, Request, failure};

#[derive(serde::Deserialize)]
struct Config {
    r#do: String,
    url: String,
}

struct Unruly(Config);

impl Plugin for Unruly {
    type Config = Config;
    const NAME: &'static str = "unruly-rust";
    const VERSION: &'static str = "0.1.0";

    fn open(config: Config, _context: Context) -> Result<Unruly, Failure> {
        Ok(Unruly(config))
    }

    fn check(&self, _far: &impl Far) -> Result<String, Failure> {
        Ok("fine".to_owned())
    }
}

impl JobSource for Unruly {
    fn poll(
        &self,
        far: &impl Far,
        _cursor: Option<&str>,
        _open: &[JobRef],
    ) -> Result<Page, Failure> {
        match self.0.r#do.as_str() {
            "trap" => panic!("the cause in the crash report"),
            "raise" => return Err(failure::transient("the cause in the failure")),
            "spin" => loop {
                std::hint::black_box(());
            },
            "bomb" => {
                let mut heap = Vec::new();
                loop {
                    heap.push(std::hint::black_box(vec![1_u8; 1 << 20]));
                }
            }
            "slow" => drop(far.fetch(Request::get(&self.0.url))?),
            _ => {}
        }
        Ok(Page {
            observations: Vec::new(),
            cursor: None,
            coverage: Coverage::Complete,
        })
    }
}

weir_sdk::job_source!(Unruly);
