import pytest

from bench.errors import BenchError
from bench.launch import profile

EVALUATE = {"kind": "evaluate", "protocol": {"name": "voc07-detection"}}


def write(tmp_path, text):
    file = tmp_path / "mine.toml"
    file.write_text('title = "t"\nlauncher = "slurm"\n' + text)
    return file


@pytest.mark.parametrize("name", profile.names())
def test_shipped_profiles_are_valid(name):
    assert profile.load(name).name == name


def test_local_dev_and_a_template_are_shipped():
    assert profile.names() == ["dev", "local", "template"]
    assert profile.load("local").launcher == "local"


def test_a_protocol_replaces_keys_of_its_kind_and_that_of_the_default(tmp_path):
    file = write(
        tmp_path,
        '[default]\npartition = "a"\ngpus = 1\ncpus = 8\n[evaluate]\ncpus = 4\n[pretrain]\ntime = "2-00:00:00"\n'
        '[protocols.voc07-detection]\ngpus = 2\nmemory = "64G"\n',
    )
    found = profile.load(str(file))
    detection = found.resources(EVALUATE)
    assert (detection.partition, detection.gpus, detection.cpus, detection.memory) == ("a", 2, 4, "64G")
    other = found.resources({"kind": "evaluate", "protocol": {"name": "other"}})
    assert (other.gpus, other.cpus, other.memory) == (1, 4, None)
    pretrain = found.resources({"kind": "pretrain"})
    assert (pretrain.cpus, pretrain.seconds, pretrain.tasks) == (8, 2 * 86400, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("partiton = 'x'", "unknown key 'partiton'"),
        ("[default]\npartiton = 'x'", "unknown key 'default.partiton'"),
        ("[protocols.x]\ncpu = 1", "unknown key 'protocols.x.cpu'"),
        ("[default]\ntime = '10'", "default.time"),
        ("[default]\nmemory = '32GB'", "default.memory"),
        ("[default]\ngpus = -1", "default.gpus"),
        ("[default]\ncpus = '8'", "default.cpus"),
        ("[default]\ntime = '00:01:00'", "is not longer than signal_seconds"),
        ("[pretrain]\nslurm = { dependency = 'afterok:1' }", "bench sets --dependency itself"),
        ("[default]\nslurm = { job_name = 'x' }", "bench sets --job-name itself"),
        ("[default]\nslurm = { time = '10' }", "bench sets --time itself"),
        ('setup = ["""module load a\nmodule load b"""]', "setup.0"),
        ("environment = { 'A-B' = 'x' }", "is no name of an environment variable"),
        ("array_limit = 0", "array_limit"),
        ("setup = [", "cannot read TOML"),
    ],
)
def test_what_is_not_understood_is_named(text, said, tmp_path):
    with pytest.raises(BenchError, match=said) as refused:
        profile.load(str(write(tmp_path, text)))
    assert "mine.toml" in str(refused.value)


def test_unknown_names(tmp_path):
    with pytest.raises(BenchError, match="unknown profile 'lokal': did you mean local"):
        profile.load("lokal")
    with pytest.raises(BenchError, match="no such profile"):
        profile.load(str(tmp_path / "none.toml"))
    file = tmp_path / "other.toml"
    file.write_text('title = "t"\nlauncher = "local"\nsignal_seconds = 60\n')
    with pytest.raises(BenchError, match="'signal_seconds' belongs to the launcher slurm"):
        profile.load(str(file))
