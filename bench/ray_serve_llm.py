"""Ray Serve LLM with a model on a CPU, set up as in its documentation: a peer for `bench/serving.py`.

python -m bench.ray_serve_llm --model DIR --port PORT [--direct]
"""

import argparse
import os
import signal
import threading

DIRECT = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1"}
"""Environment of its fastest mode: the replica streams directly, behind HAProxy."""


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", default="bench")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--direct", action="store_true", help="direct streaming")
    options = parser.parse_args()
    os.environ |= {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    if options.direct:
        os.environ |= DIRECT
    import ray
    from ray import serve
    from ray.serve.llm import LLMConfig, build_openai_app

    ray.init(address="local", num_cpus=8, include_dashboard=False, _node_ip_address="127.0.0.1")
    config = LLMConfig(
        model_loading_config={"model_id": options.name, "model_source": options.model},
        engine_kwargs={
            "max_num_seqs": 64,
            "enforce_eager": True,
            "seed": 0,
            "worker_extension_cls": "bench.amx.Extension",
        },
        deployment_config={"num_replicas": 1, "max_ongoing_requests": 1000},
        accelerator_type=None,
        placement_group_config={"bundles": [{"CPU": 1}]},
        runtime_env={
            "env_vars": {
                name: os.environ[name] for name in os.environ if name.startswith(("VLLM_", "OMP_", "PYTHON", "TORCH"))
            }
        },
        log_engine_metrics=False,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": options.port})
    serve.run(build_openai_app({"llm_configs": [config]}))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    serve.shutdown()  # type: ignore[no-untyped-call]
    ray.shutdown()


if __name__ == "__main__":
    main()
