// Refused logins, whatever language the server speaks: lc_messages follows the locale of initdb.
#include <cstdlib>

#include "store/postgres/refused_login.hpp"
#include "store/postgres_fixture.hpp"

namespace sluice::store {
namespace {

using testing::HasSubstr;
using testing::Not;

const std::string kTo = "connection to server at \"10.0.0.7\", port 5432 failed: ";
std::string refused(const std::string& said) { return kTo + said + "\nLOCATION:  somewhere, postinit.c:873\n"; }

TEST(RefusedLogin, NODE_6_the_code_is_read_in_every_language) {
  const std::pair<std::string, std::string> said[] = {
      {"FATAL:  28P01: Passwort-Authentifizierung für Benutzer »ann« fehlgeschlagen", "28P01"},
      {"FATAL:  28000: Rolle »ann« existiert nicht", "28000"},
      {"FATAL:  3D000: Datenbank »orders« existiert nicht", "3D000"},
      {"FATAL:  57P03: das Datenbanksystem startet", "57P03"},
      {"FATAL:  53300: tut mir leid, schon zu viele Verbindungen", "53300"},
      {"FATAL:  42501: keine Berechtigung für Datenbank »orders«", "42501"},
      {"FATAL :  28P01: authentification par mot de passe échouée pour l'utilisateur « ann »", "28P01"},
      {"ВАЖНО:  57P03: система баз данных запускается", "57P03"},
      {"致命错误:  3D000: 数据库 \"orders\" 不存在", "3D000"},
      {"FATAL:  57P03: das Datenbanksystem nimmt keine Verbindungen an\nDETAIL:  Hot-Standby-Modus ist deaktiviert.", "57P03"},
  };
  for (const auto& [text, code] : said) {
    EXPECT_EQ(sqlstate_of(refused(text)), code);
    std::string plain = text;
    EXPECT_EQ(words_of(refused(text)), kTo + plain.erase(plain.find(code), 7)) << "without the code, source file and line";
  }
}

TEST(RefusedLogin, NODE_6_what_has_no_code_or_a_poolers_goes_by_its_words) {
  const std::pair<const char*, const char*> said[] = {
      {"FATAL:  sorry, too many clients already", "53300"},
      {"FATAL:  08P01: password authentication failed", "28000"},
      {"FATAL:  08P01: server login failed", "08006"},
      {"FATAL:  55000: Datenbank »orders« akzeptiert gegenwärtig keine Verbindungen", "08006"},
      {"FATAL:  database \"orders\" does not exist", "3D000"},
      {"FATAL:  role \"ann\" does not exist", "28000"},
      {"session is read-only", "25006"},
      {"SSL error: certificate verify failed", "SLTLS"},
      {"Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?", "08006"},
      {"", "08006"},
  };
  for (const auto& [text, code] : said) EXPECT_EQ(sqlstate_of(text), code) << text;
}

TEST(RefusedLogin, NODE_6_of_several_hosts_the_one_that_will_take_it_in_a_moment_counts) {
  const std::string login = refused("FATAL:  28P01: Passwort-Authentifizierung für Benutzer »ann« fehlgeschlagen");
  EXPECT_EQ(sqlstate_of(login + refused("FATAL:  57P03: das Datenbanksystem fährt herunter")), "57P03");
  EXPECT_EQ(sqlstate_of(login + kTo + "session is read-only\n"), "25006");
  EXPECT_EQ(sqlstate_of(login + kTo + "Connection refused\n"), "28P01");
  EXPECT_EQ(sqlstate_of(kTo + "SSL error: certificate verify failed\n" + login), "28P01");
}

TEST(RefusedLogin, NODE_6_the_words_are_whole_and_utf_8) {
  EXPECT_EQ(words_of("FATAL:  28000: kein Eintrag f\xFCr Host\nHINT:  Siehe pg_hba.conf:12, Zeile 3.\nORT:  ClientAuthentication, auth.c:543\n"),
            "FATAL:  kein Eintrag f?r Host\nHINT:  Siehe pg_hba.conf:12, Zeile 3.");
  EXPECT_EQ(words_of("FATAL:  ABCDEF: x\n"), "FATAL:  ABCDEF: x");
  EXPECT_EQ(words_of("FATAL:  28P"), "FATAL:  28P");
  EXPECT_EQ(words_of("\n"), "");
}

TEST_F(Postgres, NODE_6_what_a_server_remarks_at_a_login_is_no_noise_among_the_logs) {
  auto o = options();
  o.url += "&options=-c%20client_min_messages%3Ddebug5";
  testing::internal::CaptureStderr();
  const bool opened = open_postgres_store(o, rig.real, rig.random, rig.executor).has_value();
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_TRUE(opened);
}

// A server that speaks German, if there is a catalogue of its messages.
class PostgresInGerman : public Postgres {
 protected:
  std::unique_ptr<testing_support::PrivatePostgres> german;
  void SetUp() override {
    ::setenv("LANGUAGE", "de", 1);
    try {
      german = std::make_unique<testing_support::PrivatePostgres>(std::vector<std::string>{"lc_messages=C.UTF-8", "max_connections=4"});
    } catch (const std::exception&) {  // no such locale
    }
    ::unsetenv("LANGUAGE");
    if (!german || said("SELECT 1/0").find("Division durch Null") == std::string::npos) GTEST_SKIP() << "no server here speaks German";
    german->sql("CREATE DATABASE d", "template1");
  }
  std::string said(const std::string& text) const {
    try {
      return german->sql(text, "template1");
    } catch (const std::exception& error) {
      return error.what();
    }
  }
  Failure refused(const std::string& role, const std::string& database) {
    auto o = options();
    o.url = german->socket_url(database);
    o.url.replace(o.url.find("sluice@"), 7, role + "@");
    const auto opened = open_postgres_store(o, rig.real, rig.random, rig.executor);
    EXPECT_FALSE(opened);
    return opened ? Failure(FailureKind::internal, "opened", "") : opened.error();
  }
};

TEST_F(PostgresInGerman, NODE_6_a_login_that_is_refused_is_known_for_what_it_is) {
  german->sql("CREATE ROLE full_up LOGIN CONNECTION LIMIT 0; CREATE ROLE nobody_in NOLOGIN; CREATE ROLE locked LOGIN PASSWORD 'right';", "template1");
  german->sql("CREATE DATABASE closed", "template1");
  german->sql("REVOKE CONNECT ON DATABASE closed FROM PUBLIC", "template1");
  {
    const std::string path = german->folder() + "/pg/data/pg_hba.conf";
    std::stringstream rest;
    rest << std::ifstream(path).rdbuf();
    std::ofstream(path) << "local all locked scram-sha-256\n" << rest.str();
  }
  german->stop(SIGINT);
  ::setenv("LANGUAGE", "de", 1);
  german->restart();
  ::unsetenv("LANGUAGE");
  const std::tuple<std::string, std::string, std::string, std::string> cases[] = {
      {"ghost", "d", "database_login", "Rolle »ghost« existiert nicht"},
      {"nobody_in", "d", "database_login", "keine Berechtigung zum Einloggen"},
      {"locked:wrong", "d", "database_login", "Passwort-Authentifizierung"},
      {"sluice", "nowhere", "no_such_database", "Datenbank »nowhere« existiert nicht"},
      {"nobody_new", "closed", "database_login", "existiert nicht"},
      {"full_up", "d", "too_many_connections", "zu viele Verbindungen"},
      {"locked:right", "closed", "database_rights", "keine Berechtigung"},
  };
  for (const auto& [role, database, code, words] : cases) {
    const Failure failure = refused(role, database);
    EXPECT_EQ(failure.code(), code) << failure.to_string();
    EXPECT_THAT(std::string(failure.detail()), HasSubstr(words));
    EXPECT_THAT(std::string(failure.detail()), Not(HasSubstr(".c:"))) << "no source file and line";
  }
  std::vector<PGconn*> taken;
  for (int i = 0; i < 8; ++i) taken.push_back(PQconnectdb(german->socket_url("d").c_str()));
  const Failure full = refused("sluice", "d");
  EXPECT_EQ(full.code(), "too_many_connections") << full.to_string();
  for (auto* connection : taken) PQfinish(connection);
}

}  // namespace
}  // namespace sluice::store
