//! `-o`: a list of words, some with values.
//!
//! Many turn knobs that only memcached's engine has; those are taken and shown, and nothing else.

use std::str::FromStr;

use sessiond::settings::{Settings, Tuning};

/// Options that promise what this server does not do, by their first letters, and what to do.
const REFUSED: &[(&str, &str)] = &[
    ("ext_", "there is no flash storage here; leave it out"),
    ("proxy_", "there is no proxy here; nodes of a group replicate by themselves"),
    ("ssl_", "clients cannot use TLS yet; leave it out"),
    ("sock_cookie_id", "sockets are not marked; leave it out"),
];

/// Takes the options of one `-o` over; returns what deserves a warning.
pub(super) fn apply(list: &str, settings: &mut Settings) -> Result<Vec<String>, String> {
    let mut warnings = Vec::new();
    for word in list.split(',').filter(|word| !word.is_empty()) {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let refused = REFUSED.iter().find(|(start, _)| name.starts_with(start));
        if let Some((_, advice)) = refused {
            return Err(format!("-o {name}: {advice}"));
        }
        if name == "drop_privileges" {
            warnings.push("-o drop_privileges: system calls are not restricted".into());
        }
        let option = SubOption { name, value };
        if !option.applied(settings)? && !option.tuned(&mut settings.tuning)? {
            return Err(format!("-o {name}: there is no such option (see sessiond --help)"));
        }
    }
    Ok(warnings)
}

/// One word of the list.
struct SubOption<'a> {
    name: &'a str,
    value: Option<&'a str>,
}

impl SubOption<'_> {
    fn number<T: FromStr>(&self) -> Result<T, String> {
        let Self { name, value } = self;
        value
            .and_then(|value| value.parse().ok())
            .ok_or_else(|| format!("-o {}: expected a number, as in {name}=10", self.written()))
    }

    fn number_in(&self, min: f64, max: f64) -> Result<f64, String> {
        let number: f64 = self.number()?;
        if !(min..=max).contains(&number) {
            return Err(format!("-o {}: expected {min} to {max}", self.written()));
        }
        Ok(number)
    }

    fn kilobytes(&self) -> Result<u32, String> {
        let too_many = || format!("-o {}: too many kilobytes", self.written());
        self.number::<u32>()?.checked_mul(1 << 10).ok_or_else(too_many)
    }

    fn written(&self) -> String {
        match self.value {
            Some(value) => format!("{}={value}", self.name),
            None => self.name.to_owned(),
        }
    }

    /// What this server obeys.
    fn applied(&self, settings: &mut Settings) -> Result<bool, String> {
        match self.name {
            "idle_timeout" => settings.idle_timeout_s = self.number()?,
            "maxconns_fast" => settings.maxconns_fast = true,
            "no_maxconns_fast" => settings.maxconns_fast = false,
            "no_modern" => {
                settings.maxconns_fast = false;
                let tuning = &mut settings.tuning;
                (tuning.slab_reassign, tuning.slab_automove) = (false, 0);
                (tuning.lru_segmented, tuning.lru_crawler) = (false, false);
                tuning.lru_maintainer = false;
                tuning.hash_algorithm = "jenkins".into();
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// How items are kept, or shown as if they were.
    fn tuned(&self, tuning: &mut Tuning) -> Result<bool, String> {
        match self.name {
            "hashpower" => tuning.hashpower = self.number_in(12.0, 32.0)? as u32,
            "hash_algorithm" => tuning.hash_algorithm = self.hash_algorithm()?.into(),
            "tail_repair_time" => tuning.tail_repair_s = self.number()?,
            "slab_reassign" => tuning.slab_reassign = true,
            "no_slab_reassign" => tuning.slab_reassign = false,
            "slab_automove" if self.value.is_none() => tuning.slab_automove = 1,
            "slab_automove" => tuning.slab_automove = self.number_in(0.0, 2.0)? as u32,
            "no_slab_automove" => tuning.slab_automove = 0,
            "slab_automove_ratio" => tuning.slab_automove_ratio = self.number_in(0.0, 1.0)?,
            "slab_automove_window" => tuning.slab_automove_window = self.number()?,
            "slab_automove_freeratio" => {
                tuning.slab_automove_freeratio = self.number_in(0.0, 1.0)?
            }
            "slab_chunk_max" => tuning.slab_chunk_max = self.number_in(128.0, 524_288.0)? as u32,
            "lru_crawler" => tuning.lru_crawler = true,
            "no_lru_crawler" => tuning.lru_crawler = false,
            "lru_crawler_sleep" => tuning.lru_crawler_sleep = self.number_in(0.0, 1e6)? as u32,
            "lru_crawler_tocrawl" => tuning.lru_crawler_tocrawl = self.number()?,
            "lru_maintainer" => (tuning.lru_maintainer, tuning.lru_segmented) = (true, true),
            "no_lru_maintainer" => (tuning.lru_maintainer, tuning.lru_segmented) = (false, false),
            "hot_lru_pct" => tuning.hot_lru_pct = self.number_in(1.0, 80.0)? as u32,
            "warm_lru_pct" => tuning.warm_lru_pct = self.number_in(1.0, 80.0)? as u32,
            "hot_max_factor" => tuning.hot_max_factor = self.number_in(0.0, f64::MAX)?,
            "warm_max_factor" => tuning.warm_max_factor = self.number_in(0.0, f64::MAX)?,
            "temporary_ttl" => {
                tuning.temporary_ttl_s = self.number()?;
                tuning.temporary_lru = true;
            }
            "watcher_logbuf_size" => tuning.watcher_buffer = self.kilobytes()?,
            "worker_logbuf_size" => tuning.worker_buffer = self.kilobytes()?,
            "read_buf_mem_limit" => {
                tuning.read_buffers_max = u64::from(self.number::<u32>()?) << 20;
            }
            "track_sizes" => tuning.track_sizes = true,
            // Not even shown by memcached.
            "no_hashexpand"
            | "no_chunked_items"
            | "slab_sizes"
            | "modern"
            | "inline_ascii_resp"
            | "no_inline_ascii_resp"
            | "resp_obj_mem_limit"
            | "drop_privileges"
            | "no_drop_privileges"
            | "relaxed_privileges" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn hash_algorithm(&self) -> Result<&str, String> {
        let known = |name: &&str| ["jenkins", "murmur3", "xxh3"].contains(name);
        self.value
            .filter(known)
            .ok_or_else(|| format!("-o {}: expected jenkins, murmur3 or xxh3", self.written()))
    }
}
