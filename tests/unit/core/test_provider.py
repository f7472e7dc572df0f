"""netchan._core.provider: finding and proving the crypto library (docs/spec/keys.md §7)."""

import asyncio
import os
import shutil
import ssl
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from netchan._core import _selftest_crypto as selftest
from netchan._core import provider

PROVIDERS = provider.available()
SHIM = ("-D_GNU_SOURCE", "-shared", "-fPIC", "-Wl,--no-as-needed")
needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler to make a library with")
PAIRS = [pytest.param(p, c, id=f"{p.name}-{c}") for p in PROVIDERS for c in p.ciphers]


def run(code: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    base = {key: value for key, value in os.environ.items() if key != "NETCHAN_CRYPTO"}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *args], env=base | env, capture_output=True, text=True, timeout=50
    )


# A libcrypto with other functions below EVP; each change is a -D.
BELOW = """
    #include <dlfcn.h>
    #include <string.h>
    typedef struct { int id; void *f; } entry;
    typedef struct { const char *names, *properties; const entry *functions; const char *text; } algorithm;
    void *EVP_CIPHER_CTX_new(void) { return ((void *(*)(void))dlsym(RTLD_NEXT, "EVP_CIPHER_CTX_new"))(); }
    static int yes(void) { return 1; }
    static int no(void) { return 0; }
    static void *room(void) { static char some[64]; return some; }
    static const entry wrong[] = {
        {1, room}, {2, yes}, {3, yes}, {4, yes}, {5, yes}, {6, yes}, {7, yes}, {10, yes}, {11, yes}, {0, 0}
    };
    static const entry refuses[] = {
        {1, room}, {2, no}, {3, no}, {4, no}, {5, no}, {6, no}, {7, yes}, {10, no}, {11, no}, {0, 0}
    };
    #ifdef HIDDEN
    void *EVP_CIPHER_get0_provider(const void *cipher) { return 0; }
    #endif
    const algorithm *OSSL_PROVIDER_query_operation(const void *p, int op, int *no_store)
    {
        static algorithm list[1024];
        const algorithm *(*f)(const void *, int, int *) = dlsym(RTLD_NEXT, "OSSL_PROVIDER_query_operation");
        const algorithm *all = f(p, op, no_store);
        int i;
        for (i = 0; i < 1023 && all[i].names; i++) {
            list[i] = all[i];
    #ifdef OTHER_NAME
            list[i].names = "AES-256-GCM-X:AES-256-GCM";
    #elif defined WRONG
            list[i].functions = wrong;
    #elif defined REFUSES
            list[i].functions = refuses;
    #elif defined NO_MASK
            if (!strncmp(all[i].names, "AES-256-ECB", 11)) list[i].functions = wrong;
    #endif
        }
    #ifdef NOT_KEPT
        *no_store = 1;
    #endif
        list[i].names = 0;
        return list;
    }
    void OSSL_PROVIDER_unquery_operation(const void *p, int op, const algorithm *list) { }
"""


class TestFinding:
    def test_available_lists_ssl_first_and_each_library_once(self) -> None:
        assert PROVIDERS[0].name == "ssl"
        assert len({p.path for p in PROVIDERS}) == len(PROVIDERS)
        assert all("aes-256-gcm" in p.ciphers or "chacha20-poly1305" in p.ciphers for p in PROVIDERS)

    def test_ssl_library_is_the_one_ssl_itself_uses(self) -> None:
        found = provider.load("ssl")
        assert found.version == ssl.OPENSSL_VERSION
        assert os.path.realpath(found.path) in Path("/proc/self/maps").read_text()

    def test_load_twice_returns_the_same_object(self) -> None:
        assert provider.load("ssl") is provider.load("ssl")

    def test_load_of_a_missing_path_names_the_extra_and_the_attempt(self) -> None:
        with pytest.raises(provider.ProviderError, match=r"pip install netchan\[sodium\].*no/such/lib is not there"):
            provider.load("/no/such/lib")

    def test_load_of_a_library_without_crypto_is_refused(self) -> None:
        with pytest.raises(provider.ProviderError, match="neither EVP nor libsodium"):
            provider.load(_libc())

    def test_path_of_a_libcrypto_gives_the_library_behind_ssl(self) -> None:
        assert provider.load(provider.load("ssl").path) is provider.load("ssl")

    def test_provider_cannot_be_made_by_hand(self) -> None:
        with pytest.raises(TypeError):
            provider.Provider()


def _libc() -> str:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return next(line.split()[-1] for line in lines if "/libc.so" in line or "/libc-" in line)


class TestOverride:
    def test_choice_reads_the_variable(self) -> None:
        assert provider.choice({"NETCHAN_CRYPTO": "nacl"}, False) == "nacl"

    def test_choice_without_or_with_empty_variable_is_none(self) -> None:
        assert provider.choice({}, False) is None
        assert provider.choice({"NETCHAN_CRYPTO": ""}, False) is None

    def test_choice_in_a_secure_process_is_ignored(self) -> None:
        assert provider.choice({"NETCHAN_CRYPTO": "/tmp/evil.so"}, True) is None

    def test_variable_selects_the_library_and_is_not_softened(self) -> None:
        code = "from netchan._core import provider; print(provider.load().name)"
        assert run(code, NETCHAN_CRYPTO="system").stdout.strip() == "system"
        assert run(code).stdout.strip() == "ssl"
        refused = run(code, NETCHAN_CRYPTO="/no/such/lib")
        assert refused.returncode == 1
        assert "ProviderError" in refused.stderr

    def test_variable_that_changes_later_counts(self) -> None:
        code = """
            import os
            from netchan._core import provider
            first = provider.load()
            os.environ["NETCHAN_CRYPTO"] = "/no/such/lib"
            try:
                provider.load()
            except provider.ProviderError:
                del os.environ["NETCHAN_CRYPTO"]
                print(provider.load() is first)
        """
        assert run(code).stdout.strip() == "True"

    @pytest.mark.skipif(not any(p.name == "nacl" for p in PROVIDERS), reason="PyNaCl is not installed")
    def test_variable_nacl_selects_libsodium(self) -> None:
        code = "from netchan._core import provider; print(provider.load().name)"
        assert run(code, NETCHAN_CRYPTO="nacl").stdout.strip() == "nacl"

    def test_no_library_at_all_raises_provider_error(self) -> None:
        code = """
            import sys
            for name in ("_ssl", "nacl", "nacl._sodium"):
                sys.modules[name] = None
            from netchan._core import provider
            try:
                provider.load("nacl")
            except provider.ProviderError as error:
                print("netchan[sodium]" in str(error) and "PyNaCl is not installed" in str(error))
        """
        assert run(code).stdout.strip() == "True"


class TestProof:
    @needs_cc
    def test_a_wrong_libcrypto_is_refused_by_version_and_by_known_answer(self, tmp_path: Path) -> None:
        """A library with the right names but wrong behaviour is never offered."""
        source = tmp_path / "fake.c"
        good = (
            "EVP_CIPHER_CTX_free EVP_EncryptInit_ex EVP_EncryptUpdate EVP_EncryptFinal_ex EVP_DecryptInit_ex "
            "EVP_DecryptUpdate EVP_DecryptFinal_ex EVP_CIPHER_CTX_ctrl EVP_MD_CTX_free EVP_DigestInit_ex "
            "EVP_DigestUpdate EVP_DigestFinal_ex ERR_clear_error ERR_peek_last_error ERR_set_mark ERR_pop_to_mark "
            "OPENSSL_cleanse"
        )
        body = "".join(f"int {name}(void) {{ return 1; }}\n" for name in good.split(" "))
        body += "static char room[64]; void *EVP_CIPHER_CTX_new(void) { return room; }\n"
        body += "void *EVP_MD_CTX_new(void) { return room; } const char *OpenSSL_version(int k) { return room; }\n"
        body += "void *EVP_sha256(void) { return room; } void *EVP_aes_256_gcm(void) { return room; }\n"
        for version, text in (
            ("0x20000000UL", r"reason -2"),
            ("0x50000000UL", r"reason -2"),
            ("0x30000130UL", r"fails known answer"),
        ):
            source.write_text(body + f"unsigned long OpenSSL_version_num(void) {{ return {version}; }}\n")
            target = tmp_path / f"fake{version}.so"
            subprocess.run(["cc", "-shared", "-fPIC", "-o", str(target), str(source)], check=True)
            with pytest.raises(provider.ProviderError, match=text):
                provider.load(str(target))

    @needs_cc
    def test_libcrypto_without_chacha_offers_aes_only_and_leaves_no_error(self, tmp_path: Path) -> None:
        """As a FIPS configuration. The failing fetch queues an error: that one goes, one of somebody else stays."""
        real = provider.load("ssl").path
        source = tmp_path / "shim.c"
        source.write_text("""
            #include <dlfcn.h>
            #include <string.h>
            void *EVP_CIPHER_CTX_new(void) { return ((void *(*)(void))dlsym(RTLD_NEXT, "EVP_CIPHER_CTX_new"))(); }
            void *EVP_CIPHER_fetch(void *c, const char *name, const char *props)
            {
                void *(*f)(void *, const char *, const char *) = dlsym(RTLD_NEXT, "EVP_CIPHER_fetch");
                return f(c, strncmp(name, "ChaCha", 6) == 0 ? "no-such-cipher" : name, props);
            }
        """)
        target = tmp_path / "shim.so"
        subprocess.run(["cc", *SHIM, "-o", target, source, real], check=True)
        code = """
            import ctypes, ssl, sys
            from netchan._core import provider
            real = ctypes.CDLL(sys.argv[1])
            real.ERR_get_error.restype = ctypes.c_ulong

            def queue_one():
                real.EVP_CIPHER_fetch(None, b"no-such-cipher", None)

            def drain():
                n = 0
                while real.ERR_get_error():
                    n += 1
                return n

            queue_one()
            print(provider.load().ciphers)
            probed = drain()
            queue_one()
            print(probed > 0 and probed == drain())
        """
        done = run(code, real, NETCHAN_CRYPTO=str(target))
        assert done.stdout.split("\n")[:2] == ["('aes-256-gcm',)", "True"], done.stderr

    @needs_cc
    def test_libcrypto_whose_tag_check_queues_errors_is_refused(self, tmp_path: Path) -> None:
        """The hot path does not clear the queue after a failed tag, so such a library cannot be used."""
        real = provider.load("ssl").path
        source = tmp_path / "noisy.c"
        source.write_text("""
            #include <dlfcn.h>
            void *EVP_CIPHER_CTX_new(void) { return ((void *(*)(void))dlsym(RTLD_NEXT, "EVP_CIPHER_CTX_new"))(); }
            int EVP_DecryptFinal_ex(void *c, unsigned char *out, int *n)
            {
                int ok = ((int (*)(void *, unsigned char *, int *))dlsym(RTLD_NEXT, "EVP_DecryptFinal_ex"))(c, out, n);
                if (ok != 1)
                    ((void *(*)(void *, const char *, const char *))dlsym(RTLD_NEXT, "EVP_CIPHER_fetch"))(0, "none", 0);
                return ok;
            }
        """)
        target = tmp_path / "noisy.so"
        subprocess.run(["cc", *SHIM, "-o", target, source, real], check=True)
        with pytest.raises(provider.ProviderError, match="fails known answer 99"):
            provider.load(str(target))

    @pytest.mark.parametrize(("p", "cipher"), PAIRS)
    def test_a_cipher_gives_the_same_bytes_through_evp_and_below_it(self, p: provider.Provider, cipher: str) -> None:
        forms = [selftest.Context(p, cipher, above=above) for above in (False, True)]
        key, aad = bytes(range(32)), bytes(range(48))
        for turn, size in enumerate((0, 1, 8, 15, 16, 17, 255, 1024, 1360, 16_384)):
            nonce, plain = bytes([turn]) * 12, bytes(i & 0xFF for i in range(size))
            for form in forms:
                assert form.key(key, 1) == 0
            sealed = {form.seal(nonce, aad[:turn], plain, split) for form in forms for split in (-1, size // 3)}
            assert len(sealed) == 1
            for form in forms:
                assert form.key(key, 2) == 0
                good = sealed.copy().pop()
                assert form.open(nonce, aad[:turn], good) == (1, plain)
                assert form.open(nonce, aad[:turn], good[:-1] + bytes([good[-1] ^ 1])) == (0, bytes(size))
                assert form.open(nonce, aad[: turn + 1], good) == (0, bytes(size))
                assert form.open(nonce, aad[:turn], good) == (1, plain)

    @pytest.mark.skipif(not ssl.OPENSSL_VERSION.startswith("OpenSSL 3"), reason="another kind of libcrypto")
    def test_the_ciphers_of_libcrypto_3_are_called_below_evp(self) -> None:
        assert provider.load("ssl").direct == provider.load("ssl").ciphers
        assert all(p.direct == () for p in PROVIDERS if p.name == "nacl")

    @needs_cc
    @pytest.mark.skipif(not ssl.OPENSSL_VERSION.startswith("OpenSSL 3"), reason="another kind of libcrypto")
    @pytest.mark.parametrize("change", ["none", "hidden", "not kept", "other name", "wrong", "refuses", "no mask"])
    def test_libcrypto_whose_own_functions_are_not_right_is_called_through_evp(
        self, tmp_path: Path, change: str
    ) -> None:
        """What shows no functions, does not let them be kept, or gives other answers through them."""
        real = provider.load("ssl").path
        (tmp_path / "below.c").write_text(BELOW)
        target = tmp_path / "below.so"
        defines = [f"-D{change.upper().replace(' ', '_')}"]
        subprocess.run(["cc", "-w", *SHIM, *defines, "-o", target, tmp_path / "below.c", real], check=True)
        found = provider.load(str(target))
        assert found.ciphers == ("aes-256-gcm", "chacha20-poly1305")
        assert found.direct == (found.ciphers if change in ("none", "no mask") else ())
        record = selftest.Context(found, "aes-256-gcm")
        assert record.key(bytes(32), 1) == 0
        assert record.seal(bytes(12), b"", b"") == bytes.fromhex("530f8afbc74536b9a963b4f1c4cb738b")

    def test_speed_reports_three_sizes_in_gigabytes_per_second(self) -> None:
        for p in PROVIDERS:
            speeds = provider.speed(p.name, time.perf_counter_ns)
            assert list(speeds) == [64, 1024, 16384]
            assert all(0.0001 < value < 1000 for value in speeds.values())

    def test_speed_of_an_unknown_cipher_raises_value_error(self) -> None:
        with pytest.raises(ValueError, match="unknown cipher"):
            provider.speed("ssl", time.perf_counter_ns, "rot13")


class TestErrorQueue:
    @pytest.mark.parametrize(("p", "cipher"), PAIRS)
    def test_tls_in_the_same_loop_survives_probes_and_failed_records(self, p: provider.Provider, cipher: str) -> None:
        """A forgotten entry in the thread's error queue makes an unrelated SSLObject.read raise SSLError."""

        async def main() -> None:
            left, right = ssl.MemoryBIO(), ssl.MemoryBIO()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            tls = context.wrap_bio(left, right)
            record = selftest.Context(p, cipher)
            record.key(bytes(32), 2)
            for turn in range(50):
                provider.available()
                with pytest.raises(provider.ProviderError):
                    provider.load("/no/such/lib")
                assert record.open(bytes(12), b"", bytes(40)) == (0, bytes(24)), turn
                with pytest.raises(ssl.SSLWantReadError):
                    tls.do_handshake()
                await asyncio.sleep(0)

        asyncio.run(main())

    def test_probe_in_a_fresh_process_leaves_the_queue_of_tls_empty(self) -> None:
        code = """
            import ssl
            left, right = ssl.MemoryBIO(), ssl.MemoryBIO()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            tls = context.wrap_bio(left, right)
            from netchan._core import provider
            try:
                provider.load("ssl")
            except provider.ProviderError:
                pass
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                print("clean")
        """
        assert run(code).stdout.strip() == "clean"


class TestExit:
    def test_process_that_seals_without_the_gil_exits_cleanly(self) -> None:
        """40 exits while a thread without the GIL re-keys and seals with contexts made beforehand."""
        code = """
            import threading, time
            from netchan._core import _selftest_crypto as selftest, provider
            found = provider.load()
            run = threading.Thread(target=selftest.seal_for_ever, args=(found, found.ciphers[0], 8), daemon=True)
            run.start()
            while selftest.seals_done() < 200:
                time.sleep(0)
        """
        outcomes = [run(code).returncode for _ in range(40)]
        assert outcomes == [0] * 40
