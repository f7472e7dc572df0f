/* gf256: the field GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1 (0x11d). docs/spec/parity.md §1.
 *
 * One form of the kernel for each set of vector instructions; all give the same bytes. No form looks anything up at an
 * index made of the data, so how long it takes says nothing about them. Coefficients are public.
 */
#ifndef NC_K_GF256_H
#define NC_K_GF256_H

#include <stddef.h>
#include <stdint.h>

typedef struct nc_gf_form {
    const char *name;
    /* dst[r][x] ^= c[r] * src[x] for each row r < rows and each x < n. Any alignment; no row overlaps src or a row. */
    void (*add)(uint8_t *const *dst, const uint8_t *c, int rows, const uint8_t *src, size_t n);
} nc_gf_form;

/* Fills the tables and finds the forms; once, before anything below is called. */
void nc_gf_init(void);
/* The forms that this processor runs, n of them, fastest first; the last one, "portable", runs everywhere. */
const nc_gf_form *nc_gf_forms(int *n);
/* Product, and the inverse (0 of 0). For coefficients only: they look up a table. */
uint8_t nc_gf_mul(uint8_t a, uint8_t b);
uint8_t nc_gf_inv(uint8_t a);

#endif
