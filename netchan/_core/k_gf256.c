/* Kernel of gf256; what it does is told in k_gf256.h.
 *
 * A product by a constant is linear over GF(2), and each form uses that in its own way:
 * - portable: the sum of the doublings 2^b * x that the bits of c choose, eight bytes in a word;
 * - ssse3, avx2: product of the low plus product of the high half of x, each by a shuffle out of a table of 16;
 * - gfni: an 8 x 8 matrix of bits for each c, since the multiplication of GFNI itself is bound to another polynomial.
 * A form works on up to ROWS rows at once: what it makes of a piece of src serves all of them.
 */
#include "k_gf256.h"

#include <string.h>

#define POLYNOMIAL 0x11d
#define ROWS 4
#define INLINE static inline __attribute__((always_inline))

static uint8_t power[510];      /* 2^i; twice, so that a sum of two logarithms needs no reduction */
static uint8_t logarithm[256];  /* of 1..255 */

uint8_t nc_gf_mul(uint8_t a, uint8_t b)
{
    return a && b ? power[logarithm[a] + logarithm[b]] : 0;
}

uint8_t nc_gf_inv(uint8_t a)
{
    return a ? power[255 - logarithm[a]] : 0;
}

/* add() of a form out of `form`_rows(dst, c, src, n, rows, ones), which is inlined for each number of rows; the first
 * `ones` rows (none or one) have c = 1 and need no product. The first row of the code always is one of these. */
#define DEFINE_ADD(form, target)                                                                                       \
    target static void form##_add(uint8_t *const *dst, const uint8_t *c, int rows, const uint8_t *src, size_t n)       \
    {                                                                                                                  \
        for (; rows > 0; rows -= ROWS, dst += ROWS, c += ROWS) {                                                       \
            switch ((rows < ROWS ? rows : ROWS) * 2 + (*c == 1)) {                                                     \
            case 2: form##_rows(dst, c, src, n, 1, 0); break;                                                          \
            case 3: form##_rows(dst, c, src, n, 1, 1); break;                                                          \
            case 4: form##_rows(dst, c, src, n, 2, 0); break;                                                          \
            case 5: form##_rows(dst, c, src, n, 2, 1); break;                                                          \
            case 6: form##_rows(dst, c, src, n, 3, 0); break;                                                          \
            case 7: form##_rows(dst, c, src, n, 3, 1); break;                                                          \
            case 8: form##_rows(dst, c, src, n, 4, 0); break;                                                          \
            case 9: form##_rows(dst, c, src, n, 4, 1); break;                                                          \
            }                                                                                                          \
        }                                                                                                              \
    }

/* ------------------------------------------------------------------------------------------------------ portable */
/* Two machine words, one vector register where there is one. */
typedef uint64_t words __attribute__((vector_size(16)));

INLINE words double_words(words v)
{
    words top = v & 0x8080808080808080u;
    return ((v ^ top) << 1) ^ ((top - (top >> 7)) & 0x1d1d1d1d1d1d1d1du);
}

/* sum[r] = c[r] * v in each byte; chosen[r][b] is all ones where bit b of c[r] is set. */
INLINE void words_products(words *sum, words v, words (*chosen)[8], const int rows, const int ones)
{
    for (int r = 0; r < rows; r++) sum[r] = r < ones ? v : v & chosen[r][0];
    if (rows == ones) return;
    for (int b = 1; b < 8; b++) {
        v = double_words(v);
        for (int r = ones; r < rows; r++) sum[r] ^= v & chosen[r][b];
    }
}

INLINE void portable_rows(uint8_t *const *dst, const uint8_t *c, const uint8_t *src, size_t n, const int rows,
                          const int ones)
{
    words chosen[ROWS][8], sum[ROWS], v, d;
    size_t x = 0;
    for (int r = ones; r < rows; r++)
        for (int b = 0; b < 8; b++) chosen[r][b] = (words){0} - (c[r] >> b & 1);
    for (; x + 16 <= n; x += 16) {
        memcpy(&v, src + x, 16);
        words_products(sum, v, chosen, rows, ones);
        for (int r = 0; r < rows; r++) {
            memcpy(&d, dst[r] + x, 16);
            d ^= sum[r];
            memcpy(dst[r] + x, &d, 16);
        }
    }
    if (x == n) return;
    v = d = (words){0};
    memcpy(&v, src + x, n - x);
    words_products(sum, v, chosen, rows, ones);
    for (int r = 0; r < rows; r++) {
        memcpy(&d, dst[r] + x, n - x);
        d ^= sum[r];
        memcpy(dst[r] + x, &d, n - x);
    }
}

DEFINE_ADD(portable, )

#if defined(__x86_64__)
#include <immintrin.h>

/* Sixteen bytes read at `last + left` keep the last `left` bytes of a vector and clear those before. */
static const uint8_t last[32] = {[16] = 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};

static uint8_t half[256][2][16];  /* products of c with 0..15, and with the same times 16 */
static uint64_t matrix[256];      /* as gf2p8affineqb takes it: byte 7 - i is the row of result bit i */

/* The end of a form's rows: whole vectors of 16 bytes from x on; then the last `left` bytes as one vector that ends
 * with them and is cleared in front, where the product is nothing and dst stays as it is. Rows shorter than a vector
 * are left to the portable form. `product` is an expression of s and r. */
#define FINISH(product)                                                                                                \
    for (; x < n; x += 16) {                                                                                           \
        size_t left = n - x, at = left < 16 ? n - 16 : x;                                                              \
        __m128i s = _mm_loadu_si128((const __m128i *)(src + at));                                                      \
        if (left < 16) s = _mm_and_si128(s, _mm_loadu_si128((const __m128i *)(last + left)));                          \
        for (int r = 0; r < rows; r++) {                                                                               \
            __m128i *d = (__m128i *)(dst[r] + at);                                                                     \
            _mm_storeu_si128(d, _mm_xor_si128(_mm_loadu_si128(d), r < ones ? s : product));                            \
        }                                                                                                              \
    }

/* --------------------------------------------------------------------------------------------------------- ssse3 */
#define SSSE3 __attribute__((target("ssse3")))

INLINE SSSE3 __m128i ssse3_product(__m128i s, __m128i low, __m128i high)
{
    const __m128i nibble = _mm_set1_epi8(15);
    __m128i l = _mm_shuffle_epi8(low, _mm_and_si128(s, nibble));
    return _mm_xor_si128(l, _mm_shuffle_epi8(high, _mm_and_si128(_mm_srli_epi64(s, 4), nibble)));
}

INLINE SSSE3 void ssse3_rows(uint8_t *const *dst, const uint8_t *c, const uint8_t *src, size_t n, const int rows,
                             const int ones)
{
    __m128i low[ROWS], high[ROWS];
    size_t x = 0;
    if (n < 16) {
        portable_add(dst, c, rows, src, n);
        return;
    }
    for (int r = 0; r < rows; r++) {
        low[r] = _mm_loadu_si128((const __m128i *)half[c[r]][0]);
        high[r] = _mm_loadu_si128((const __m128i *)half[c[r]][1]);
    }
    FINISH(ssse3_product(s, low[r], high[r]))
}

DEFINE_ADD(ssse3, SSSE3)

/* ---------------------------------------------------------------------------------------------------------- avx2 */
#define AVX2 __attribute__((target("avx2")))

INLINE AVX2 __m256i avx2_product(__m256i s, __m256i low, __m256i high)
{
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i l = _mm256_shuffle_epi8(low, _mm256_and_si256(s, nibble));
    return _mm256_xor_si256(l, _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi64(s, 4), nibble)));
}

INLINE AVX2 void avx2_rows(uint8_t *const *dst, const uint8_t *c, const uint8_t *src, size_t n, const int rows,
                           const int ones)
{
    __m256i low[ROWS], high[ROWS];
    size_t x = 0;
    if (n < 16) {
        portable_add(dst, c, rows, src, n);
        return;
    }
    for (int r = 0; r < rows; r++) {
        low[r] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)half[c[r]][0]));
        high[r] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)half[c[r]][1]));
    }
    for (; x + 32 <= n; x += 32) {
        __m256i s = _mm256_loadu_si256((const __m256i *)(src + x));
        for (int r = 0; r < rows; r++) {
            __m256i *d = (__m256i *)(dst[r] + x);
            __m256i product = r < ones ? s : avx2_product(s, low[r], high[r]);
            _mm256_storeu_si256(d, _mm256_xor_si256(_mm256_loadu_si256(d), product));
        }
    }
    FINISH(ssse3_product(s, _mm256_castsi256_si128(low[r]), _mm256_castsi256_si128(high[r])))
}

DEFINE_ADD(avx2, AVX2)

/* ---------------------------------------------------------------------------------------------------------- gfni */
#define GFNI __attribute__((target("avx2,gfni")))

INLINE GFNI void gfni_rows(uint8_t *const *dst, const uint8_t *c, const uint8_t *src, size_t n, const int rows,
                           const int ones)
{
    __m256i m[ROWS];
    size_t x = 0;
    if (n < 16) {
        portable_add(dst, c, rows, src, n);
        return;
    }
    for (int r = 0; r < rows; r++) m[r] = _mm256_set1_epi64x((long long)matrix[c[r]]);
    for (; x + 32 <= n; x += 32) {
        __m256i s = _mm256_loadu_si256((const __m256i *)(src + x));
        for (int r = 0; r < rows; r++) {
            __m256i *d = (__m256i *)(dst[r] + x);
            __m256i product = r < ones ? s : _mm256_gf2p8affine_epi64_epi8(s, m[r], 0);
            _mm256_storeu_si256(d, _mm256_xor_si256(_mm256_loadu_si256(d), product));
        }
    }
    FINISH(_mm_gf2p8affine_epi64_epi8(s, _mm256_castsi256_si128(m[r]), 0))
}

DEFINE_ADD(gfni, GFNI)

static void vector_tables(void)
{
    for (int c = 0; c < 256; c++) {
        for (int x = 0; x < 16; x++) {
            half[c][0][x] = nc_gf_mul((uint8_t)c, (uint8_t)x);
            half[c][1][x] = nc_gf_mul((uint8_t)c, (uint8_t)(x << 4));
        }
        for (int j = 0; j < 8; j++)
            for (int i = 0; i < 8; i++)
                matrix[c] |= (uint64_t)(nc_gf_mul((uint8_t)c, (uint8_t)(1 << j)) >> i & 1) << (8 * (7 - i) + j);
    }
}
#endif

/* --------------------------------------------------------------------------------------------------------- choice */
static nc_gf_form forms[4];
static int n_forms;

void nc_gf_init(void)
{
    if (n_forms) return;
    for (unsigned i = 0, v = 1; i < 255; i++) {
        power[i] = power[i + 255] = (uint8_t)v;
        logarithm[v] = (uint8_t)i;
        v = v << 1 ^ (v & 0x80 ? POLYNOMIAL : 0);
    }
#if defined(__x86_64__)
    vector_tables();
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("gfni"))
        forms[n_forms++] = (nc_gf_form){"gfni", gfni_add};
    if (__builtin_cpu_supports("avx2")) forms[n_forms++] = (nc_gf_form){"avx2", avx2_add};
    if (__builtin_cpu_supports("ssse3")) forms[n_forms++] = (nc_gf_form){"ssse3", ssse3_add};
#endif
    forms[n_forms++] = (nc_gf_form){"portable", portable_add};
}

const nc_gf_form *nc_gf_forms(int *n)
{
    *n = n_forms;
    return forms;
}
