"""XLA's descriptions of GPUs to compile for, as text protocol buffers (GpuTargetConfigProto).

All figures are copied from a100_sxm_80, h100_sxm and h200.txtpb in XLA's own repository
(openxla/xla, xla/backends/gpu/target_config/specs). XLA reads them in place of a device.
"""

COMMON = """gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {shared_memory_per_core}
  threads_per_core_limit: 2048
  core_count: {core_count}
  fpus_per_core: {fpus_per_core}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {memory_bandwidth}
  l2_cache_size: {l2_cache_size}
  clock_rate_ghz: {clock_rate_ghz}
  device_memory_size: {device_memory_size}
  shared_memory_per_block_optin: {shared_memory_per_block_optin}
  cuda_compute_capability {{ major: {major} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 12 minor: 9 patch: 0 }}
device_description_str: "{name}"
"""
HOPPER = {
    "shared_memory_per_core": 233472,
    "core_count": 132,
    "fpus_per_core": 128,
    "l2_cache_size": 52428800,
    "clock_rate_ghz": 1.98,
    "shared_memory_per_block_optin": 232448,
    "major": 9,
}
AMPERE = {
    "shared_memory_per_core": 167936,
    "core_count": 108,
    "fpus_per_core": 64,
    "l2_cache_size": 41943040,
    "clock_rate_ghz": 1.41,
    "shared_memory_per_block_optin": 166912,
    "major": 8,
}
TARGETS = {
    kind: COMMON.format(
        name=name, memory_bandwidth=bandwidth, device_memory_size=size, **architecture
    )
    for kind, name, bandwidth, size, architecture in (
        ("a100", "NVIDIA A100-SXM4-80GB", 2_039_040_000_000, 85_100_068_864, AMPERE),
        ("h100", "NVIDIA H100 80GB HBM3", 3_352_320_000_000, 84_942_979_072, HOPPER),
        ("h200", "NVIDIA H200 141GB HBM3e", 4_800_000_000_000, 151_397_597_184, HOPPER),
    )
}
